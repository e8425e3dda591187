"""Migrates a database to this code's schema: applies migrations/*.sql once each, in order of their names.

yoyo-migrations reads the files and records which ones are applied. This module differs from yoyo alone in two
points, so that a process may be killed at any time and several may start at once. A migration and its record
are one transaction, and the lock is an advisory lock of PostgreSQL, which ends with its connection (yoyo's
lock is a row that a killed process leaves behind).

Workers continue meanwhile. A migration waits for its locks only briefly, since all later statements wait
behind it. Then it lets them pass, and tries again.

The role that owns the schema migrates. The application's role can only find out that nothing is to be
applied.
"""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import partial
from importlib.resources import as_file, files
from typing import Any, NamedTuple
from uuid import uuid4

import psycopg2
from psycopg2.errors import InsufficientPrivilege, LockNotAvailable, UndefinedTable
from yoyo.backends.core.postgresql import PostgresqlBackend
from yoyo.migrations import Migration, MigrationList

from mercuria.postgres.errors import first_line
from mercuria.postgres.locks import LOCKED, TABLE_LOCK_TIMEOUT_S, retry_while_locked

CONNECT_TIMEOUT_S = 10
LOCK_TIMEOUT_S = 600
"""The timeout for migrations of another process, and for the locks of a migration itself."""

LOCK = 0x6D657263
"""The number of the advisory lock for changing the schema or emptying tables, the same for all processes."""

_TABLE = "_yoyo_migration"
"""yoyo's table of applied migrations."""

log = logging.getLogger(__name__)


class MigrationError(Exception):
    """The database cannot be migrated to this code's schema. The message is one sentence with the reason."""


class DatabaseAway(MigrationError):
    """PostgreSQL cannot be reached."""


class NotTheOwner(MigrationError):
    """A migration is to be applied, and this role does not own the schema."""


def migrate(database_url: str, *, last: str | None = None) -> list[str]:
    """Apply the missing migrations, and return their names.

    Waits while another process migrates.

    Args:
        last: the name of the last migration to apply; all are applied by default.

    Raises:
        MigrationError: PostgreSQL cannot be reached, the database is newer than this code, a migration fails, or
            a migration is to be applied and the role does not own the schema.
    """
    with _Backend(_Address(database_url), _TABLE) as backend, _migrations() as migrations:
        wanted = [each for each in migrations if last is None or each.id <= last]
        known = {each.id for each in migrations}
        if not _missing(backend, wanted, known):
            return []
        _lock(backend)
        # Another process may have applied them meanwhile.
        missing = _missing(backend, wanted, known)
        if missing:
            _require_owner(backend, missing)
            backend.ensure_internal_schema_updated()
        return [_apply_patiently(backend, migration) for migration in missing]


class _Address(NamedTuple):
    """The argument of yoyo's backends."""

    url: str
    database: str = ""


class _Backend(PostgresqlBackend):  # type: ignore[misc]  # yoyo carries no types
    """yoyo's PostgreSQL backend, which connects with a libpq URL."""

    uri: _Address

    def connect(self, dburi: _Address) -> Any:
        try:
            connection = psycopg2.connect(dburi.url, connect_timeout=CONNECT_TIMEOUT_S)
        except psycopg2.OperationalError as error:
            raise DatabaseAway(f"PostgreSQL cannot be reached: {first_line(error)}") from error
        connection.autocommit = True
        return connection

    @contextmanager
    def lock(self, timeout: float = 0) -> Iterator[None]:
        """Skip yoyo's lock row, because the advisory lock is held."""
        yield

    def get_log_data(self, migration: Migration | None = None, operation: str = "apply") -> dict[str, Any]:
        """Return the values of yoyo's log, without a DNS look-up or the name of a user that may not exist."""
        assert migration is not None
        return {
            "id": str(uuid4()),
            "migration_id": migration.id,
            "migration_hash": migration.hash,
            "username": os.environ.get("USER") or str(os.getuid()),
            "hostname": socket.gethostname(),
            "created_at_utc": datetime.now(UTC).replace(tzinfo=None),
            "operation": operation,
        }


@contextmanager
def _migrations() -> Iterator[MigrationList]:
    """Find the migration files, also in an installed wheel."""
    with ExitStack() as opened:
        sources = sorted(
            (source for source in files("mercuria.migrations").iterdir() if source.name.endswith(".sql")),
            key=lambda source: source.name,
        )
        paths = [opened.enter_context(as_file(source)) for source in sources]
        yield MigrationList([Migration(path.stem, str(path), str(path.parent)) for path in paths])


def _lock(backend: _Backend) -> None:
    """Wait until no other process migrates this database. The lock ends with the connection."""
    backend.execute(f"SET lock_timeout = '{LOCK_TIMEOUT_S}s'")
    try:
        backend.execute("SELECT pg_advisory_lock(:number)", {"number": LOCK})
    except LockNotAvailable:
        raise MigrationError(
            f"Another process has been migrating the database for {LOCK_TIMEOUT_S} s; try again when it is done."
        ) from None


def _missing(backend: _Backend, wanted: list[Migration], known: set[str]) -> list[Migration]:
    """Return the migrations that are not applied to the database.

    Raises:
        MigrationError: the database is newer than this code.
    """
    applied = _applied(backend)
    _refuse_newer(applied, known)
    return [each for each in wanted if each.id not in applied]


def _applied(backend: _Backend) -> set[str]:
    try:
        return {name for (name,) in backend.execute(f"SELECT migration_id FROM {_TABLE}")}  # noqa: S608  a constant
    except UndefinedTable:
        return set()
    except InsufficientPrivilege:
        # The application's role asks, and the database is older than that role.
        raise _not_the_owner(backend, "migrations") from None


def _require_owner(backend: _Backend, missing: list[Migration]) -> None:
    """Raise `NotTheOwner` if this role does not own the schema to migrate."""
    ((is_owner,),) = backend.execute(
        "SELECT COALESCE("
        " (SELECT pg_has_role(tableowner, 'USAGE') FROM pg_tables"
        "  WHERE schemaname = current_schema() AND tablename = :table),"
        " has_schema_privilege(current_schema(), 'CREATE'))",
        {"table": _TABLE},
    )
    if not is_owner:
        raise _not_the_owner(backend, ", ".join(str(each.id) for each in missing))


def _not_the_owner(backend: _Backend, lacks: str) -> NotTheOwner:
    ((role,),) = backend.execute("SELECT current_user")
    return NotTheOwner(
        f"The database lacks {lacks}, and the role {role} does not own it: run `mercuria migrate` with"
        " MERCURIA_DATABASE_OWNER, the URL of the role that does."
    )


def _refuse_newer(applied: set[str], known: set[str]) -> None:
    unknown = sorted(applied - known)
    if unknown:
        raise MigrationError(
            f"The database is newer than this Mercuria, which does not know {', '.join(unknown)}:"
            " install the version that the database was used with last, or a later one."
        )


def _apply_patiently(backend: _Backend, migration: Migration) -> str:
    """Apply a migration as soon as it gets its locks, without blocking workers for long."""
    waits = "The migration %s waits for a lock that another session holds, and tries again."
    try:
        return retry_while_locked(
            partial(_apply, backend, migration), LOCK_TIMEOUT_S, log, waits, migration.id
        )
    except LOCKED as error:
        raise MigrationError(
            f"The migration {migration.id} has not got its locks for {LOCK_TIMEOUT_S} s: {first_line(error)}."
        ) from error


def _apply(backend: _Backend, migration: Migration) -> str:
    """Apply a migration and record it, in one transaction."""
    try:
        with backend.transaction():
            backend.execute(f"SET LOCAL lock_timeout = '{TABLE_LOCK_TIMEOUT_S * 1000:.0f}ms'")
            migration.process_steps(backend, "apply")
            backend.mark_one(migration)
    except LOCKED:
        raise
    except psycopg2.Error as error:
        raise MigrationError(f"The migration {migration.id} failed: {first_line(error)}") from error
    return str(migration.id)
