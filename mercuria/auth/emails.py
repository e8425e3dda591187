"""E-mail addresses: how they are shown, and what tells them apart. Nothing is asked of the DNS, and nothing is sent.

Two addresses are the same when they differ in large and small letters only, or in how Unicode composes a letter
(NFC). Letters that Unicode folds into others, such as `ß` into `ss` and the ligature `ﬁ` into `fi`, lead to different
mailboxes, and so to different accounts.
"""

import unicodedata
from hashlib import sha256

from email_validator import EmailNotValidError, validate_email
from msgspec import Struct

from mercuria.http.problems import FieldError, Problem

MAX_CHARACTERS = 254
"""RFC 5321's longest path, without its brackets."""


class Email(Struct, frozen=True):
    """An address that could exist. `key` is the same in large and small letters."""

    shown: str
    key: str

    @property
    def former_key(self) -> str:
        """The key of earlier versions, which folded case: accounts that they made have it until they are met."""
        return unicodedata.normalize("NFC", self.shown.casefold())

    @property
    def pseudonym(self) -> str:
        """What stands for it where the address itself must not."""
        return sha256(self.key.encode()).hexdigest()[:32]

    @property
    def words(self) -> list[str]:
        """What an attacker would try first in a password."""
        return [self.shown, *self.shown.split("@")]


def parse_email(text: str) -> Email | Problem:
    """Return the address that stands in `text`, or what is wrong with it."""
    if len(text) > MAX_CHARACTERS:
        return _problem(f"It must have at most {MAX_CHARACTERS} characters.")
    try:
        shown = validate_email(text.strip(), check_deliverability=False, strict=True).normalized
    except EmailNotValidError as error:
        return _problem(str(error))
    return Email(shown, key_of(shown))


def key_of(shown: str) -> str:
    """Return the key of an address that has been parsed before."""
    return unicodedata.normalize("NFC", shown.lower())


def _problem(detail: str) -> Problem:
    return Problem("invalid_email", detail, [FieldError("email", "invalid_email", detail)])
