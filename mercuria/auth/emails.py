"""E-mail addresses: their syntax, display form and identity. Nothing here queries the DNS or sends mail.

Two addresses are equal if they differ only in case, or in how Unicode composes a letter (NFC). Letters that
Unicode folds into others, such as `ß` into `ss` and the ligature `ﬁ` into `fi`, belong to different
mailboxes, and so to different accounts.
"""

import unicodedata
from hashlib import sha256

from email_validator import EmailNotValidError, validate_email
from msgspec import Struct

from mercuria.http.problems import FieldError, Problem

MAX_CHARACTERS = 254
"""The longest path of RFC 5321, without its brackets."""


class Email(Struct, frozen=True):
    """A well-formed address. `key` does not depend on case."""

    shown: str
    key: str

    @property
    def former_key(self) -> str:
        """The key of earlier versions, which folded case. Their accounts keep it until the next look-up."""
        return unicodedata.normalize("NFC", self.shown.casefold())

    @property
    def pseudonym(self) -> str:
        """The pseudonym that replaces the address where the address itself must not appear."""
        return sha256(self.key.encode()).hexdigest()[:32]

    @property
    def words(self) -> list[str]:
        """The parts of the address that an attacker would try first in a password."""
        return [self.shown, *self.shown.split("@")]


def parse_email(text: str) -> Email | Problem:
    """Return the address in `text`, or the problem with it."""
    if len(text) > MAX_CHARACTERS:
        return _problem(f"It must have at most {MAX_CHARACTERS} characters.")
    try:
        shown = validate_email(text.strip(), check_deliverability=False, strict=True).normalized
    except EmailNotValidError as error:
        return _problem(str(error))
    return Email(shown, key_of(shown))


def key_of(shown: str) -> str:
    """Return the key of an address that was parsed before."""
    return unicodedata.normalize("NFC", shown.lower())


def _problem(detail: str) -> Problem:
    return Problem("invalid_email", detail, [FieldError("email", "invalid_email", detail)])
