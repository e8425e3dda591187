"""Accounts of people: registration, login, refresh of a session, and logout.

A login begins a family of refresh tokens. Each token is valid once and yields the next one; the two are never
valid at the same time. Reuse of a spent token ends the whole family: either a thief or the owner has used the
token second, and the server cannot distinguish the two.
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
"""How many outdated tokens a login deletes: the size of a family refreshed every quarter of an hour."""

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
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105  a type, not a token


class ReusedToken(Problem, frozen=True, kw_only=True):
    """The rejection of a refresh token that was already spent, with the id of its owner."""

    user_id: UUID


class Accounts:
    """All accounts.

    Raises (all methods):
        DatabaseUnavailable: PostgreSQL is unavailable.
    """

    def __init__(self, database: Database, passwords: Passwords, tokens: Tokens, settings: Settings) -> None:
        self._database = database
        self._passwords = passwords
        self._tokens = tokens
        self._idle_days = settings.refresh_idle_days
        self._family_days = settings.refresh_family_days

    # Operations of users.

    async def register(self, email: Email, password: str) -> Session | Problem:
        """Create an account and begin a session. A taken address costs the same work as a free one."""
        row = await self._insert(email, password, "user")
        return row if isinstance(row, Problem) else await self._begin(row)

    async def login(self, email: Email, password: str) -> Session | Problem:
        """Begin a session if the password is right. An unknown address takes the work of a wrong password."""
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
        """Exchange a refresh token for a new session. The token is spent afterwards."""
        old = {"hash": _digest(token)}
        async with self._database.transaction() as transaction:
            family = await transaction.row(_SQL["lock_family"], old)
            if family is None:
                return Problem("invalid_refresh_token")
            # A statement of its own reads the token after the family is locked, so it sees all changes made before.
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
        """End the session of a refresh token, whether spent or not. An unknown token has no effect."""
        await self._database.execute(_SQL["revoke_family_of_token"], {"hash": _digest(token)})

    async def user(self, user_id: UUID) -> User | None:
        """Return an account."""
        row = await self._database.row(_SQL["user_by_id"], {"id": user_id})
        return _user(row) if row else None

    # Operations of operators.

    async def create(self, email: Email, password: str, role: Role) -> User | Problem:
        """Create an account."""
        row = await self._insert(email, password, role)
        return row if isinstance(row, Problem) else _user(row)

    async def first(self, limit: int) -> tuple[int, list[User]]:
        """Return the number of accounts, and the `limit` oldest ones."""
        count = await self._database.row(_SQL["count_users"])
        assert count is not None, "a count is a row"
        rows = await self._database.rows(_SQL["users"], {"limit": limit})
        return count.number, [_user(row) for row in rows]

    async def set_role(self, email: Email, role: Role) -> User | None:
        """Change a user's role. The new role takes effect with the user's next access token."""
        known = await self._row(email)
        if known is None:
            return None
        row = await self._database.row(_SQL["set_role"], {"id": known.id, "role": role})
        return _user(row) if row else None

    async def set_password(self, email: Email, password: str) -> User | Problem | None:
        """Change a user's password, and end all the user's sessions."""
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

    # Implementation.

    async def _row(self, email: Email) -> Any:
        """Return the row of an address's account, or None.

        An account of an earlier version that is found here gets the current key. So it does not block another
        address, and its own address finds it.
        """
        rows = await self._database.rows(_SQL["users_by_keys"], {"keys": list({email.key, email.former_key})})
        for row in rows:
            if row.email_key != key_of(row.email):
                change = {"id": row.id, "old": row.email_key, "new": key_of(row.email)}
                # An account that a worker of the earlier version has created meanwhile may have this key.
                with suppress(UniqueViolation):
                    await self._database.execute(_SQL["set_key"], change)
        own = [row for row in rows if key_of(row.email) == email.key]
        return max(own, key=lambda row: bool(row.email_key == email.key), default=None)

    async def _insert(self, email: Email, password: str, role: Role) -> Any:
        """Create an account; return its row, or a problem."""
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
        # If the hashing queue is full, the next login does it.
        if isinstance(new, str):
            change = {"id": row.id, "old": row.password_hash, "new": new}
            await self._database.execute(_SQL["rehash"], change)

    async def _begin(self, row: Any) -> Session | Problem:
        """Begin a family of refresh tokens, and return its first session."""
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
        """Delete tokens and families whose time is over. A failure here does not fail the login."""
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
