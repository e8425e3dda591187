"""Security events: log lines about login attempts, refusals, and changes that operators make to accounts.

Each event has a stable name (`Event`), and identifies people by pseudonyms: keyed hashes of e-mail addresses
and user ids. The key is derived from the installation's leg key, so an account has the same pseudonym in all
workers, commands and days. Without the key, a list of addresses does not resolve a pseudonym. Another leg key
yields other pseudonyms.
"""

import hmac
import logging
from collections.abc import Callable
from enum import StrEnum
from typing import Any
from uuid import UUID

from mercuria.auth.emails import Email

PURPOSE = b"mercuria: pseudonyms in security events"
PSEUDONYM_DIGITS = 32
MAX_USER_AGENT_CHARACTERS = 200

logger = logging.getLogger("mercuria.security")


class Event(StrEnum):
    """The name of a security event. It is stable from version to version."""

    LOGIN_FAILED = "login_failed"
    LOGIN_LIMITED = "login_limited"
    REGISTRATION_LIMITED = "registration_limited"
    REFRESH_REUSED = "refresh_token_reused"
    ACCESS_DENIED = "access_denied"
    ACCOUNT_CREATED = "account_created"
    ROLE_CHANGED = "role_changed"
    PASSWORD_CHANGED = "password_changed"  # noqa: S105  the name of an event


SENTENCES: dict[Event, str] = {
    Event.LOGIN_FAILED: "A login failed: there is no such account, or the password is another one.",
    Event.LOGIN_LIMITED: "A login was refused, as too many were tried before.",
    Event.REGISTRATION_LIMITED: "A registration was refused, as too many were tried before.",
    Event.REFRESH_REUSED: "A spent refresh token was used again, and its session has ended.",
    Event.ACCESS_DENIED: "A call was refused, as the caller may not do this.",
    Event.ACCOUNT_CREATED: "An account was made by a command.",
    Event.ROLE_CHANGED: "An account was given a role by a command.",
    Event.PASSWORD_CHANGED: "An account was given another password by a command, and its sessions have ended.",
}


class Pseudonyms:
    """Derives pseudonyms.

    Args:
        read_key: returns the installation's leg key; called for the first pseudonym.
    """

    def __init__(self, read_key: Callable[[], bytes]) -> None:
        self._read_key = read_key
        self._key: bytes | None = None

    def of_email(self, email: Email) -> str:
        """Return the pseudonym of an account, whether it exists or not."""
        return self._of(f"account {email.key}")

    def of_user(self, user_id: UUID) -> str:
        """Return the pseudonym of a user id."""
        return self._of(f"user {user_id}")

    def _of(self, text: str) -> str:
        if self._key is None:
            self._key = hmac.digest(self._read_key(), PURPOSE, "sha256")
        return hmac.digest(self._key, text.encode(), "sha256").hex()[:PSEUDONYM_DIGITS]


def emit(event: Event, **fields: Any) -> None:
    """Log a security event, with the fields that are not None."""
    given = {name: value for name, value in fields.items() if value is not None}
    logger.warning(SENTENCES[event], extra={"security_event": str(event)} | given)
