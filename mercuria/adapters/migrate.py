"""Brings a database to the schema that this code needs: migrations/*.sql, each once and in order of their names.

yoyo-migrations reads the files and keeps its account of what is applied. Two things are done otherwise than by yoyo
alone, so that a process may be killed at any moment and several may start at once: a migration and the note that it
is applied are one transaction, and the lock is one of PostgreSQL's, which ends with its connection (yoyo's is a row
that a killed process leaves behind).
"""

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from importlib.resources import as_file, files
from typing import Any, NamedTuple
from uuid import uuid4

import psycopg2
from psycopg2.errors import LockNotAvailable
from yoyo.backends.core.postgresql import PostgresqlBackend
from yoyo.migrations import Migration, MigrationList

CONNECT_TIMEOUT_S = 10
LOCK_TIMEOUT_S = 600
"""How long another process's migrations are waited for."""

_TABLE = "_yoyo_migration"
"""yoyo's account of what is applied."""

_LOCK = 0x6D657263
"""The advisory lock's number, the same for all processes."""


class MigrationError(Exception):
    """The database cannot be brought to this code's schema; the message is one sentence that says why."""


class DatabaseAway(MigrationError):
    """PostgreSQL cannot be reached."""


def migrate(database_url: str) -> list[str]:
    """Apply the migrations that the database does not have yet, and return their names.

    Waits while another process does so.

    Raises:
        MigrationError: PostgreSQL cannot be reached, the database is newer than this code, or a migration fails.
    """
    with _Backend(_Address(database_url), _TABLE) as backend, _migrations() as migrations:
        _lock(backend)
        backend.ensure_internal_schema_updated()
        _refuse_newer(_applied(backend), {migration.id for migration in migrations})
        return [_apply(backend, migration) for migration in backend.to_apply(migrations)]


class _Address(NamedTuple):
    """What yoyo's backends are made of."""

    url: str
    database: str = ""


class _Backend(PostgresqlBackend):  # type: ignore[misc]  # yoyo carries no types
    """yoyo's PostgreSQL, reached as libpq reads the URL."""

    uri: _Address

    def connect(self, dburi: _Address) -> Any:
        try:
            connection = psycopg2.connect(dburi.url, connect_timeout=CONNECT_TIMEOUT_S)
        except psycopg2.OperationalError as error:
            raise DatabaseAway(f"PostgreSQL cannot be reached: {_first_line(error)}") from error
        connection.autocommit = True
        return connection

    @contextmanager
    def lock(self, timeout: float = 0) -> Iterator[None]:
        """Do without yoyo's row: the advisory lock is held."""
        yield

    def get_log_data(self, migration: Migration | None = None, operation: str = "apply") -> dict[str, Any]:
        """Return what yoyo's log keeps, without asking the DNS for a name, or for a user that may have none."""
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
    """Find the files, also in an installed wheel."""
    with ExitStack() as opened:
        sources = sorted(
            (source for source in files("mercuria.migrations").iterdir() if source.name.endswith(".sql")),
            key=lambda source: source.name,
        )
        paths = [opened.enter_context(as_file(source)) for source in sources]
        yield MigrationList([Migration(path.stem, str(path), str(path.parent)) for path in paths])


def _lock(backend: _Backend) -> None:
    """Wait until no other process migrates this database; the lock ends with the connection."""
    backend.execute(f"SET lock_timeout = '{LOCK_TIMEOUT_S}s'")
    try:
        backend.execute("SELECT pg_advisory_lock(:number)", {"number": _LOCK})
    except LockNotAvailable:
        raise MigrationError(
            f"Another process has been migrating the database for {LOCK_TIMEOUT_S} s; try again when it is done."
        ) from None


def _applied(backend: _Backend) -> set[str]:
    return {name for (name,) in backend.execute(f"SELECT migration_id FROM {_TABLE}")}  # noqa: S608  a constant


def _refuse_newer(applied: set[str], known: set[str]) -> None:
    unknown = sorted(applied - known)
    if unknown:
        raise MigrationError(
            f"The database is newer than this Mercuria, which does not know {', '.join(unknown)}:"
            " install the version that the database was used with last, or a later one."
        )


def _apply(backend: _Backend, migration: Migration) -> str:
    """Apply a migration and note it, in one transaction."""
    try:
        with backend.transaction():
            migration.process_steps(backend, "apply")
            backend.mark_one(migration)
    except psycopg2.Error as error:
        raise MigrationError(f"The migration {migration.id} failed: {_first_line(error)}") from error
    return str(migration.id)


def _first_line(error: psycopg2.Error) -> str:
    first, *_ = str(error).strip().splitlines() or ["it gives no reason."]
    return first
