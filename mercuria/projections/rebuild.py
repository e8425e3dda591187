"""Empties the tables that the log can fill again, so that running workers fill them.

Only the owner of the tables may, and only here is the ledger not append-only: its trigger is off within the
transaction, which nobody else sees. The outboxes stay: what they hold was told and is not in Kafka yet.
"""

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psycopg2
from psycopg2 import sql
from psycopg2.errors import DeadlockDetected, InsufficientPrivilege, LockNotAvailable, UndefinedTable

from mercuria.postgres.database import queries
from mercuria.postgres.errors import first_line
from mercuria.postgres.migrate import CONNECT_TIMEOUT_S, LOCK, TABLE_LOCK_PAUSE_S, TABLE_LOCK_TIMEOUT_S

TABLES: Mapping[str, tuple[str, ...]] = {
    "transactions": ("wallets", "wallet_events", "wallet_limits", "transactions"),
    "ledger": ("ledger_entries",),
    "analytics": (
        "daily_totals",
        "daily_active_wallets",
        "user_totals",
        "effective_totals",
        "effective_active_wallets",
    ),
}
"""By stage, the tables that it fills."""

PATIENCE_S = 60.0
"""How long the tables are waited for, in turn with those who use them."""

Places = dict[str, dict[int, int]]
"""By stage and partition, the offset of the last record that is part of the tables; -1 before the first."""

_SQL = queries("mercuria.projections", "rebuild.sql")

log = logging.getLogger(__name__)


class RebuildError(Exception):
    """The tables cannot be rebuilt; nothing was changed. The message is what the person who started it reads."""


class Tables:
    """The tables, to their owner.

    Args:
        url: PostgreSQL as the role that owns them, as libpq reads it.

    Raises (all methods):
        RebuildError: PostgreSQL is away, not migrated, or lets somebody else alone do that.
    """

    def __init__(self, url: str) -> None:
        self._url = url

    def places(self) -> Places:
        """Return how far each stage is; a stage that never began is there with nothing."""
        with self._transaction() as cursor:
            cursor.execute(_SQL["places"], {"stages": list(TABLES)})
            places: Places = {stage: {} for stage in TABLES}
            for stage, partition, read in cursor:
                places[stage][partition] = read
            return places

    def empty(self) -> None:
        """Empty all tables, and let all stages begin again; all of that or nothing."""
        deadline = time.monotonic() + PATIENCE_S
        tell = log.warning
        while True:
            try:
                with self._transaction() as cursor:
                    return _empty(cursor)
            except (LockNotAvailable, DeadlockDetected) as error:
                if time.monotonic() > deadline:
                    raise RebuildError(
                        f"somebody has kept the tables locked for {PATIENCE_S:.0f} s; nothing was changed"
                    ) from error
            tell("Somebody uses the tables; they are emptied when they are free for a moment.")
            # Once is enough.
            tell = log.debug
            time.sleep(TABLE_LOCK_PAUSE_S)

    def counts(self) -> dict[str, int]:
        """Return how many rows each table has."""
        counts: dict[str, int] = {}
        with self._transaction() as cursor:
            for table in _all_tables():
                cursor.execute(sql.SQL(_SQL["count"]).format(table=sql.Identifier(table)))
                (counts[table],) = cursor.fetchone()
        return counts

    @contextmanager
    def _transaction(self) -> Iterator[Any]:
        """Let the block have a cursor; commit at its end, or roll back where it raises."""
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
            if isinstance(error, LockNotAvailable | DeadlockDetected):
                raise
            raise RebuildError(f"PostgreSQL is away: {first_line(error)}") from error
        finally:
            connection.close()


def _empty(cursor: Any) -> None:
    stages = {"stages": list(TABLES)}
    tables = sql.SQL(", ").join(map(sql.Identifier, _all_tables()))
    cursor.execute(_SQL["be_alone"], {"number": LOCK})
    cursor.execute(_SQL["hold_places"], stages)
    cursor.execute(sql.SQL(_SQL["hold_tables"]).format(tables=tables))
    cursor.execute(_SQL["open_books"])
    cursor.execute(sql.SQL(_SQL["empty"]).format(tables=tables))
    cursor.execute(_SQL["close_books"])
    # Last: who brings in a new partition waits for these rows from here on.
    cursor.execute(_SQL["begin_again"], stages)


def _all_tables() -> list[str]:
    return [table for tables in TABLES.values() for table in tables]
