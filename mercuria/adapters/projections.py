"""Writes the projections: all rows of some events and how far they reach, in one transaction.

Bulk rows go in by COPY, which aiopg cannot: so this is psycopg2, which waits, and belongs into a thread.
"""

import os
import socket
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from io import StringIO
from typing import Any

import psycopg2

from mercuria.adapters.positions import Place
from mercuria.adapters.postgres import UNAVAILABLE, DatabaseUnavailable, queries
from mercuria.adapters.projected_rows import Texts

STAGE = "transactions"
"""The name of the stage whose positions these are."""

CONNECT_TIMEOUT_S = 5
STATEMENT_TIMEOUT_S = 60
IDLE_TIMEOUT_S = 10
"""After it, the server ends the transaction of a worker that stands still, and frees its partitions for others."""
SILENCE_S = 15
"""After it, a server that is gone without a word is given up."""

ALSO_AWAY = ("25P03", "40001", "40P01", "42P01", "42704", "42703", "55P03")
"""More that is no bug of the rows: the transaction was ended, or has to be tried again, or the schema is not there yet.

https://www.postgresql.org/docs/18/errcodes-appendix.html
"""

_SQL = queries("mercuria.adapters", "projections.sql")


class Projections:
    """PostgreSQL's `wallets`, `wallet_events` and `transactions`, to one writer at a time.

    First `begin`, then `write` or `leave`. After `DatabaseUnavailable`, `begin` connects anew.

    Raises (all methods):
        DatabaseUnavailable: PostgreSQL is away, or not migrated; nothing was written, unless a COMMIT was under way.
        psycopg2.Error: a bug.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: Any = None

    def begin(self, partitions: Collection[int]) -> dict[int, Place]:
        """Begin a transaction, and lock where partitions are.

        Returns:
            The places of those that nobody else has locked: a worker that had the partition before may still write.
        """
        with self._in_order():
            if self._connection is None:
                self._connect()
            return _lock(self._connection, partitions)

    def write(self, texts: Texts) -> None:
        """Write rows with the places after them, and commit."""
        with self._in_order(), self._connection.cursor() as cursor:
            # What else is to be in this transaction gets a field in `Texts`, and a line here.
            _copy(cursor, "copy_events", texts.events)
            _copy(cursor, "copy_wallets", texts.openings)
            _change_wallets(cursor, texts)
            _keep_transactions(cursor, texts.transactions)
            _move(cursor, texts.moved)
            self._connection.commit()

    def leave(self) -> None:
        """End the transaction without having written anything."""
        with self._in_order():
            self._connection.rollback()

    def close(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def interrupt(self) -> None:
        """Break the connection, so that a thread which waits for the server comes back. Any thread may call this."""
        connection = self._connection
        if connection is None or connection.closed:
            return
        with suppress(psycopg2.Error, OSError), socket.socket(fileno=os.dup(connection.fileno())) as its:
            its.shutdown(socket.SHUT_RDWR)

    def _connect(self) -> None:
        self._connection = psycopg2.connect(
            self._url,
            connect_timeout=CONNECT_TIMEOUT_S,
            tcp_user_timeout=SILENCE_S * 1000,
            keepalives_idle=SILENCE_S // 3,
            keepalives_interval=SILENCE_S // 3,
            keepalives_count=2,
            fallback_application_name=f"mercuria {STAGE}",
        )
        with self._connection.cursor() as cursor:
            settings = {
                "statement_timeout_ms": str(STATEMENT_TIMEOUT_S * 1000),
                "idle_timeout_ms": str(IDLE_TIMEOUT_S * 1000),
            }
            cursor.execute(_SQL["set_up"], settings)
            cursor.execute(_SQL["make_room"])
        self._connection.commit()

    @contextmanager
    def _in_order(self) -> Iterator[None]:
        """Give up a connection that has failed; say what is no bug as `DatabaseUnavailable`."""
        try:
            yield
        except BaseException as error:
            was_closed = self._connection is None or self._connection.closed
            self.close()
            if isinstance(error, psycopg2.Error) and (was_closed or _is_away(error)):
                raise DatabaseUnavailable(_first_line(error)) from error
            raise


def _lock(connection: Any, partitions: Collection[int]) -> dict[int, Place]:
    which = {"stage": STAGE, "partitions": list(partitions)}
    with connection.cursor() as cursor:
        cursor.execute(_SQL["lock"], which)
        if cursor.rowcount < len(partitions):
            # Some are locked by others, or have no place yet. It is there for all at once, so that nobody waits for it.
            cursor.execute(_SQL["introduce"], which)
            connection.commit()
            cursor.execute(_SQL["lock"], which)
        return {partition: Place(read, command) for partition, read, command in cursor.fetchall()}


def _copy(cursor: Any, name: str, rows: str) -> None:
    if rows:
        cursor.copy_expert(_SQL[name], StringIO(rows), size=1 << 20)


def _change_wallets(cursor: Any, texts: Texts) -> None:
    if texts.changed:
        cursor.execute(_SQL["change_wallets"], texts.changes)
        assert cursor.rowcount == texts.changed, "a wallet that changes is there, and older"


def _keep_transactions(cursor: Any, rows: str) -> None:
    if rows:
        _copy(cursor, "copy_transactions", rows)
        cursor.execute(_SQL["keep_transactions"])


def _move(cursor: Any, moved: dict[int, Place]) -> None:
    places = {
        "stage": STAGE,
        "partitions": list(moved),
        "read_offsets": [place.read for place in moved.values()],
        "command_offsets": [place.command for place in moved.values()],
    }
    cursor.execute(_SQL["move"], places)
    assert cursor.rowcount == len(moved), "what moves was locked"


def _is_away(error: psycopg2.Error) -> bool:
    if error.pgcode is None:
        return isinstance(error, psycopg2.OperationalError | psycopg2.InterfaceError)
    return str(error.pgcode).startswith(UNAVAILABLE + ALSO_AWAY)


def _first_line(error: psycopg2.Error) -> str:
    first, *_ = str(error).strip().splitlines() or ["it gives no reason"]
    return first
