"""Rebuild of the projections: empties the tables that running workers fill again from the log.

Only the owner of the tables has the right to do so. Only here is the ledger not append-only: its trigger is
off within the transaction, which is invisible to other sessions. The outboxes stay: their events are emitted,
but not in Kafka yet.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg2
from psycopg2 import sql
from psycopg2.errors import InsufficientPrivilege, UndefinedTable

from mercuria.postgres.database import queries
from mercuria.postgres.errors import first_line
from mercuria.postgres.locks import LOCKED, TABLE_LOCK_TIMEOUT_S, retry_while_locked
from mercuria.postgres.migrate import CONNECT_TIMEOUT_S, LOCK
from mercuria.projections.registry import PROJECTIONS

TABLES = tuple(table for flow in PROJECTIONS.values() for table in flow.fills)
"""The tables that are emptied."""

PATIENCE_S = 60.0
"""How long the rebuild waits for the tables, in turn with the workers that use them."""

Checkpoints = dict[str, dict[int, int]]
"""By projection and partition, the offset of the last record in the tables; -1 before the first."""

_SQL = queries("mercuria.projections", "rebuild.sql")

log = logging.getLogger(__name__)


class RebuildError(Exception):
    """The tables cannot be rebuilt; nothing was changed. The message is meant for the operator."""


class Tables:
    """The tables, as seen by their owner.

    Args:
        url: PostgreSQL with the role that owns the tables, as a libpq URL.

    Raises (all methods):
        RebuildError: PostgreSQL is unavailable, not migrated, or the role is not the owner.
    """

    def __init__(self, url: str) -> None:
        self._url = url

    def checkpoints(self) -> Checkpoints:
        """Return the checkpoint of each projection. A projection that never began has an empty entry."""
        with self._transaction() as cursor:
            cursor.execute(_SQL["checkpoints"], {"stages": list(PROJECTIONS)})
            checkpoints: Checkpoints = {stage: {} for stage in PROJECTIONS}
            for stage, partition, read in cursor:
                checkpoints[stage][partition] = read
            return checkpoints

    def empty(self) -> None:
        """Empty all tables and reset all projections, in one transaction."""
        waits = "Another session uses the tables; they are emptied once it releases them."
        try:
            retry_while_locked(self._empty_now, PATIENCE_S, log, waits)
        except LOCKED as error:
            raise RebuildError(
                f"another session kept the tables locked for {PATIENCE_S:.0f} s; nothing was changed"
            ) from error

    def _empty_now(self) -> None:
        with self._transaction() as cursor:
            _empty(cursor)

    def counts(self) -> dict[str, int]:
        """Return the number of rows of each table."""
        counts: dict[str, int] = {}
        with self._transaction() as cursor:
            for table in TABLES:
                cursor.execute(sql.SQL(_SQL["count"]).format(table=sql.Identifier(table)))
                (counts[table],) = cursor.fetchone()
        return counts

    @contextmanager
    def _transaction(self) -> Iterator[Any]:
        """Lend the block a cursor; commit at its end, or roll back if it raises."""
        try:
            connection = psycopg2.connect(
                self._url, connect_timeout=CONNECT_TIMEOUT_S, fallback_application_name="mercuria rebuild"
            )
        except psycopg2.OperationalError as error:
            raise RebuildError(f"PostgreSQL cannot be reached: {first_line(error)}") from error
        try:
            with connection, connection.cursor() as cursor:
                timeout_ms = f"{TABLE_LOCK_TIMEOUT_S * 1000:.0f}"
                cursor.execute(_SQL["be_patient"], {"lock_timeout_ms": timeout_ms})
                yield cursor
        except UndefinedTable as error:
            raise RebuildError("the database lacks tables: run `mercuria migrate`") from error
        except InsufficientPrivilege as error:
            raise RebuildError(
                f"only the owner of the tables may do that ({first_line(error)}):"
                " set MERCURIA_DATABASE_OWNER to the URL of the role that owns them"
            ) from error
        except psycopg2.OperationalError as error:
            if isinstance(error, LOCKED):
                raise
            raise RebuildError(f"PostgreSQL is away: {first_line(error)}") from error
        finally:
            connection.close()


def _empty(cursor: Any) -> None:
    stages = {"stages": list(PROJECTIONS)}
    tables = sql.SQL(", ").join(map(sql.Identifier, TABLES))
    cursor.execute(_SQL["be_alone"], {"number": LOCK})
    cursor.execute(_SQL["hold_places"], stages)
    cursor.execute(sql.SQL(_SQL["hold_tables"]).format(tables=tables))
    cursor.execute(_SQL["open_books"])
    cursor.execute(sql.SQL(_SQL["empty"]).format(tables=tables))
    cursor.execute(_SQL["close_books"])
    # This comes last: a worker that introduces a new partition waits for these rows from here on.
    cursor.execute(_SQL["begin_again"], stages)
