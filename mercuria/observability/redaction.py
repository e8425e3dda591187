"""Redaction: removes secrets from the texts of log lines.

Mercuria itself does not log known secrets. Redaction is the second line of defence, for messages of libraries
and for exceptions that quote their input.
"""

import re
from typing import Any
from urllib.parse import unquote, urlsplit

REDACTED = "***"

_NAMES = (
    r"(?:password|passwd|pwd|secret|token|authorization|api[_-]?key|private[_-]?key|leg[_-]?key)"
    r"(?:_hash)?"
)
_is_secret_name = re.compile(_NAMES, re.IGNORECASE).search

_HINTS = (
    "@",
    "eyj",
    "$2",
    '"d"',
    '"d\\',
    "'d'",
    "bearer",
    "basic ",
    "pass",
    "pwd",
    "secret",
    "token",
    "authorization",
    "key",
)
"""Lower-case strings. Every text that the patterns below can match has one; most texts have none."""

_VALUE = r"""(?:b?"(?:[^"\\]|\\.)*"|b?'(?:[^'\\]|\\.)*'|[^\s"',;&)}\]]+)"""

_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    # The user name and password of a URL.
    (re.compile(r"(\b[a-z][a-z0-9+.-]{1,20}://)[^\s/?#\"']*@", re.IGNORECASE), rf"\1{REDACTED}@"),
    # Credentials, as in the Authorization header (RFC 9110).
    (re.compile(r"\b(bearer|basic)\s+[\w.~+/=-]{8,}", re.IGNORECASE), rf"\1 {REDACTED}"),
    # Tokens in JSON, such as JWS (RFC 7515).
    (re.compile(r"\beyJ[\w-]+\.[\w-]+(?:\.[\w-]*)?"), REDACTED),
    # bcrypt's hashes.
    (re.compile(r"\$2[abxy]?\$\d\d\$[./A-Za-z0-9]+"), REDACTED),
    # The private number of a key (RFC 8037), and fields whose name marks a secret.
    (re.compile(rf"""(["']d["']\s*:\s*){_VALUE}"""), rf"\1{REDACTED}"),
    (
        re.compile(rf"""({_NAMES}["']?\s*(?:=|:)\s*(?:(?:bearer|basic)\s+)?){_VALUE}""", re.I),
        rf"\1{REDACTED}",
    ),
    # E-mail addresses.
    (re.compile(r"[\w.!#$%&'+^`{|}~-]{1,64}@[\w-]+(?:\.[\w-]+)*"), REDACTED),
)


class Redaction:
    """Removes secrets from texts by pattern, and those of `urls` also by value."""

    def __init__(self, *urls: str) -> None:
        passwords = {urlsplit(url).password or "" for url in urls}
        both = passwords | {unquote(password) for password in passwords}
        # A shorter secret would match parts of unrelated words.
        self._values = sorted((value for value in both if len(value) >= 8), key=len, reverse=True)

    def may_concern(self, text: str) -> bool:
        """Return whether a text may contain a secret. This check is faster than redaction itself."""
        small = text.lower()
        return any(map(small.__contains__, _HINTS)) or any(map(text.__contains__, self._values))

    def field(self, name: str, value: Any) -> Any:
        """Return the value of a field without secrets."""
        if _is_secret_name(name):
            return REDACTED
        if value is None or isinstance(value, int | float):
            return value
        return self(value if isinstance(value, str) else str(value))

    def __call__(self, text: str) -> str:
        """Return `text` without secrets."""
        for value in self._values:
            if value in text:
                text = text.replace(value, REDACTED)
        for pattern, instead in _PATTERNS:
            text = pattern.sub(instead, text)
        return text
