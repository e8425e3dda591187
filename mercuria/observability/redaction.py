"""Redaction: what no log line may show, wherever it stands in a text.

Nothing is logged that is known to be a secret. This is the second line: for a library's message, or an exception that
quotes what it was given.
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
"""In small letters, what every text has that the patterns below could match: most texts have none of it."""

_VALUE = r"""(?:b?"(?:[^"\\]|\\.)*"|b?'(?:[^'\\]|\\.)*'|[^\s"',;&)}\]]+)"""

_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    # The user's name and the password of a URL.
    (re.compile(r"(\b[a-z][a-z0-9+.-]{1,20}://)[^\s/?#\"']*@", re.IGNORECASE), rf"\1{REDACTED}@"),
    # Credentials, as the Authorization header has them (RFC 9110).
    (re.compile(r"\b(bearer|basic)\s+[\w.~+/=-]{8,}", re.IGNORECASE), rf"\1 {REDACTED}"),
    # Tokens in JSON, as JWS are (RFC 7515).
    (re.compile(r"\beyJ[\w-]+\.[\w-]+(?:\.[\w-]*)?"), REDACTED),
    # bcrypt's hashes.
    (re.compile(r"\$2[abxy]?\$\d\d\$[./A-Za-z0-9]+"), REDACTED),
    # The private number of a key (RFC 8037), and what is called a secret by its name.
    (re.compile(rf"""(["']d["']\s*:\s*){_VALUE}"""), rf"\1{REDACTED}"),
    (
        re.compile(rf"""({_NAMES}["']?\s*(?:=|:)\s*(?:(?:bearer|basic)\s+)?){_VALUE}""", re.I),
        rf"\1{REDACTED}",
    ),
    # E-mail addresses.
    (re.compile(r"[\w.!#$%&'+^`{|}~-]{1,64}@[\w-]+(?:\.[\w-]+)*"), REDACTED),
)


class Redaction:
    """Takes secrets out of texts: by their looks, and those of `urls` also by their value."""

    def __init__(self, *urls: str) -> None:
        passwords = {urlsplit(url).password or "" for url in urls}
        both = passwords | {unquote(password) for password in passwords}
        # A shorter one would tear up words that have nothing to do with it.
        self._values = sorted((value for value in both if len(value) >= 8), key=len, reverse=True)

    def may_concern(self, text: str) -> bool:
        """Tell, sooner than looking closely, whether there may be a secret in a text."""
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
