"""Accounts of people: they register, log in, stay logged in, and log out.

A login begins a family of refresh tokens. Each of them is good once and gives the next one; there is no overlap in
which both are good. Who uses a spent one again ends the whole family: either the thief or the owner came second, and
nobody can tell which.
"""

from contextlib import suppress
from datetime import datetime
from hashlib import sha256
from secrets import token_urlsafe
from typing import Any, Literal
from uuid import UUID, uuid4

from msgspec import Struct

from mercuria.auth.emails import Email, key_of
from mercuria.auth.passwords import Passwords
from mercuria.auth.tokens import Caller, Role, Tokens
from mercuria.config import Settings
from mercuria.http.problems import Problem
from mercuria.postgres.database import Database, DatabaseUnavailable, UniqueViolation, queries

REFRESH_TOKEN_BYTES = 32
SWEPT_AT_ONCE = 10_000
"""How many ended tokens a login deletes: as many as a family has that is refreshed every quarter of an hour."""

_SQL = queries("mercuria.auth", "accounts.sql")


class User(Struct, frozen=True):
    """A person's account, as everybody may see it who may see it at all."""

    id: UUID
    email: str
    role: Role
    created_at: datetime


class Session(Struct, frozen=True):
    """What a login gives: `access_token` for `expires_in` seconds, and `refresh_token` for the next session."""

    user: User
    access_token: str
    refresh_token: str
    expires_in: int
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105  its kind


class ReusedToken(Problem, frozen=True, kw_only=True):
    """The refusal of a refresh token that was spent before, and whose it was."""

    user_id: UUID


class Accounts:
    """All accounts.

    Raises (all methods):
        DatabaseUnavailable: PostgreSQL is away.
    """

    def __init__(self, database: Database, passwords: Passwords, tokens: Tokens, settings: Settings) -> None:
        self._database = database
        self._passwords = passwords
        self._tokens = tokens
        self._idle_days = settings.refresh_idle_days
        self._family_days = settings.refresh_family_days

    # What people do.

    async def register(self, email: Email, password: str) -> Session | Problem:
        """Make an account and begin a session. An address that is taken shows only after the same work."""
        row = await self._insert(email, password, "user")
        return row if isinstance(row, Problem) else await self._begin(row)

    async def login(self, email: Email, password: str) -> Session | Problem:
        """Begin a session, if the password is right. An unknown address takes the same work as a wrong password."""
        row = await self._row(email)
        matches = await self._passwords.matches(password, row.password_hash if row else None)
        if isinstance(matches, Problem):
            return matches
        if row is None or not matches:
            return Problem("invalid_credentials")
        if self._passwords.is_outdated(row.password_hash):
            await self._rehash(row, password)
        session = await self._begin(row)
        await self._sweep()
        return session

    async def refresh(self, token: str) -> Session | Problem:
        """Spend a refresh token for a new session."""
        old = {"hash": _digest(token)}
        async with self._database.transaction() as transaction:
            family = await transaction.row(_SQL["lock_family"], old)
            if family is None:
                return Problem("invalid_refresh_token")
            # Read when the family is locked, and by a statement of its own, which sees what was done before.
            state = await transaction.row(_SQL["refresh_token"], old)
            if state is None:
                return Problem("invalid_refresh_token")
            if state.is_spent:
                await transaction.execute(_SQL["revoke_family"], {"id": family.id})
                return ReusedToken("refresh_token_reused", user_id=family.user_id)
            if family.is_revoked:
                return Problem("invalid_refresh_token")
            if state.is_expired:
                return Problem("refresh_token_expired")
            row = await transaction.row(_SQL["user_by_id"], {"id": family.user_id})
            new = token_urlsafe(REFRESH_TOKEN_BYTES)
            renewal = {"old": old["hash"], "new": _digest(new), "idle_days": self._idle_days}
            renewed = await transaction.execute(_SQL["renew_token"], renewal)
            assert renewed == 1, "the token is there, and locked"
        return self._session(row, new)

    async def logout(self, token: str) -> None:
        """End the session that a refresh token, spent or not, belongs to; an unknown one belongs to none."""
        await self._database.execute(_SQL["revoke_family_of_token"], {"hash": _digest(token)})

    async def user(self, user_id: UUID) -> User | None:
        """Return an account."""
        row = await self._database.row(_SQL["user_by_id"], {"id": user_id})
        return _user(row) if row else None

    # What operators do.

    async def create(self, email: Email, password: str, role: Role) -> User | Problem:
        """Make an account."""
        row = await self._insert(email, password, role)
        return row if isinstance(row, Problem) else _user(row)

    async def first(self, limit: int) -> tuple[int, list[User]]:
        """Return how many accounts there are, and the `limit` oldest of them."""
        count = await self._database.row(_SQL["count_users"])
        assert count is not None, "a count is a row"
        rows = await self._database.rows(_SQL["users"], {"limit": limit})
        return count.number, [_user(row) for row in rows]

    async def set_role(self, email: Email, role: Role) -> User | None:
        """Give a person another role, which counts from their next access token on."""
        known = await self._row(email)
        if known is None:
            return None
        row = await self._database.row(_SQL["set_role"], {"id": known.id, "role": role})
        return _user(row) if row else None

    async def set_password(self, email: Email, password: str) -> User | Problem | None:
        """Give a person another password, and end all their sessions."""
        password_hash = await self._new_hash(email, password)
        if isinstance(password_hash, Problem):
            return password_hash
        known = await self._row(email)
        if known is None:
            return None
        async with self._database.transaction() as transaction:
            new = {"id": known.id, "password_hash": password_hash}
            row = await transaction.row(_SQL["set_password"], new)
            if row is None:
                return None
            await transaction.execute(_SQL["revoke_families_of_user"], {"user_id": row.id})
        return _user(row)

    # How.

    async def _row(self, email: Email) -> Any:
        """Return the row of an address's account, or None.

        Accounts of earlier versions that are met here get the key of today, so that none stands in the way of
        another address, and each is found by its own.
        """
        rows = await self._database.rows(_SQL["users_by_keys"], {"keys": list({email.key, email.former_key})})
        for row in rows:
            if row.email_key != key_of(row.email):
                change = {"id": row.id, "old": row.email_key, "new": key_of(row.email)}
                # An account that a worker of the earlier version made meanwhile may have it.
                with suppress(UniqueViolation):
                    await self._database.execute(_SQL["set_key"], change)
        own = [row for row in rows if key_of(row.email) == email.key]
        return max(own, key=lambda row: bool(row.email_key == email.key), default=None)

    async def _insert(self, email: Email, password: str, role: Role) -> Any:
        """Make an account; return its row, or a problem."""
        password_hash = await self._new_hash(email, password)
        if isinstance(password_hash, Problem):
            return password_hash
        if await self._row(email) is not None:
            return Problem("email_taken")
        user = {
            "id": uuid4(),
            "email": email.shown,
            "email_key": email.key,
            "password_hash": password_hash,
            "role": role,
        }
        row = await self._database.row(_SQL["insert_user"], user)
        return Problem("email_taken") if row is None else row

    async def _new_hash(self, email: Email, password: str) -> str | Problem:
        weakness = await self._passwords.weakness(password, email.words)
        return await self._passwords.hash(password) if weakness is None else weakness

    async def _rehash(self, row: Any, password: str) -> None:
        new = await self._passwords.hash(password)
        # Where there is no time for it now, the next login does it.
        if isinstance(new, str):
            change = {"id": row.id, "old": row.password_hash, "new": new}
            await self._database.execute(_SQL["rehash"], change)

    async def _begin(self, row: Any) -> Session | Problem:
        """Begin a family, and return its first session."""
        token = token_urlsafe(REFRESH_TOKEN_BYTES)
        family = {
            "user_id": row.id,
            "password_changed_at": row.password_changed_at,
            "family_id": uuid4(),
            "hash": _digest(token),
            "idle_days": self._idle_days,
            "family_days": self._family_days,
        }
        begun = await self._database.execute(_SQL["begin_family"], family)
        return self._session(row, token) if begun else Problem("invalid_credentials")

    async def _sweep(self) -> None:
        """Delete what has ended. It belongs to nobody's login, and fails none."""
        with suppress(DatabaseUnavailable):
            await self._database.execute(_SQL["sweep_tokens"], {"limit": SWEPT_AT_ONCE})
            await self._database.execute(_SQL["sweep_families"], {"limit": SWEPT_AT_ONCE})

    def _session(self, row: Any, refresh_token: str) -> Session:
        access_token = self._tokens.issue(Caller(row.id, row.role))
        return Session(_user(row), access_token, refresh_token, self._tokens.lifetime_s)


def _digest(token: str) -> bytes:
    return sha256(token.encode("utf-8", "surrogatepass")).digest()


def _user(row: Any) -> User:
    return User(row.id, row.email, row.role, row.created_at)
