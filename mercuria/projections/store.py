"""The tables of a stage: rows of events, how far they reach, and what is told because of them, in one transaction.

Bulk rows go in by COPY, which aiopg cannot: so this is psycopg2, which waits, and belongs into a thread.
"""

import os
import socket
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from io import StringIO
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import psycopg2
from psycopg2 import sql

from mercuria.postgres.database import UNAVAILABLE, DatabaseUnavailable, queries
from mercuria.postgres.errors import first_line
from mercuria.projections.checkpoints import Place

T = TypeVar("T")

CONNECT_TIMEOUT_S = 5
STATEMENT_TIMEOUT_S = 60
IDLE_TIMEOUT_S = 10
"""After it, the server ends the transaction of a worker that stands still, and frees its partitions for others."""
SILENCE_S = 15
"""After it, a server that is gone without a word is given up."""

ALSO_AWAY = ("25P03", "40001", "40P01", "42P01", "42501", "42704", "42703", "55P03")
"""More that is no bug of the rows: the transaction was ended, or has to be tried again, or the schema is not there yet,
or its rights.

https://www.postgresql.org/docs/18/errcodes-appendix.html
"""

_SQL = queries("mercuria.projections", "store.sql")


class OutboxRow(NamedTuple):
    """What one transaction tells in a partition, up to the event with the number `sequence`."""

    partition: int
    sequence: int
    records: bytes


class StageTables(Generic[T]):
    """A stage's tables in PostgreSQL, to one writer at a time. `T` are the rows that it writes.

    First `begin`, then perhaps `left`, then `write` or `leave`. After `DatabaseUnavailable`, `begin` connects anew.

    Raises (all methods):
        DatabaseUnavailable: PostgreSQL is away, or not migrated; nothing was written, unless a COMMIT was under way.
        psycopg2.Error: a bug.
    """

    stage: ClassVar[str]
    """The name of the stage whose positions these are."""
    outbox: ClassVar[str | None] = None
    """The table of what is told to the next topic."""

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
            places = _lock(self._connection, self.stage, partitions)
            with self._connection.cursor() as cursor:
                self._look(cursor, places)
            return places

    def left(self, partitions: Collection[int]) -> list[OutboxRow]:
        """Return what the outbox holds of partitions that are locked, in order."""
        with self._in_order(), self._connection.cursor() as cursor:
            cursor.execute(self._outbox("left"), {"partitions": list(partitions)})
            return [OutboxRow(partition, sequence, bytes(records)) for partition, sequence, records in cursor]

    def write(
        self,
        rows: T,
        moved: Mapping[int, Place],
        told: Sequence[OutboxRow] = (),
        published: Mapping[int, int] | None = None,
    ) -> None:
        """Write rows with the places after them and what they tell, and commit.

        Args:
            published: by partition, up to which number Kafka has what was told: it leaves the outbox.
        """
        with self._in_order(), self._connection.cursor() as cursor:
            if moved:
                self._write(cursor, rows)
                self._move(cursor, moved)
            if told:
                cursor.execute(self._outbox("put"), _columns(OutboxRow, told))
            if published:
                partitions, sequences = list(published), list(published.values())
                cursor.execute(self._outbox("drop"), {"partitions": partitions, "sequences": sequences})
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

    # For each stage.

    def _set_up(self, cursor: Any) -> None:
        """Prepare a new connection."""

    def _look(self, cursor: Any, places: dict[int, Place]) -> None:
        """Read what the next rows of these partitions follow; take those out that have to be left alone."""

    def _write(self, cursor: Any, rows: T) -> None:
        """Write rows."""
        raise NotImplementedError

    # For all.

    def _connect(self) -> None:
        self._connection = psycopg2.connect(
            self._url,
            connect_timeout=CONNECT_TIMEOUT_S,
            tcp_user_timeout=SILENCE_S * 1000,
            keepalives_idle=SILENCE_S // 3,
            keepalives_interval=SILENCE_S // 3,
            keepalives_count=2,
            fallback_application_name=f"mercuria {self.stage}",
        )
        with self._connection.cursor() as cursor:
            settings = {
                "statement_timeout_ms": str(STATEMENT_TIMEOUT_S * 1000),
                "idle_timeout_ms": str(IDLE_TIMEOUT_S * 1000),
            }
            cursor.execute(_SQL["set_up"], settings)
            self._set_up(cursor)
        self._connection.commit()

    def _outbox(self, name: str) -> sql.Composable:
        assert self.outbox is not None, "this stage tells nothing"
        return sql.SQL(_SQL[name]).format(outbox=sql.Identifier(self.outbox))

    def _move(self, cursor: Any, moved: Mapping[int, Place]) -> None:
        places = list(moved.values())
        parameters = {
            "stage": self.stage,
            "partitions": list(moved),
            "read_offsets": [place.read for place in places],
            "command_offsets": [place.command for place in places],
            "sequences": [place.sequence for place in places],
            "told": [place.told for place in places],
            "sent": [place.sent for place in places],
        }
        cursor.execute(_SQL["move"], parameters)
        assert cursor.rowcount == len(moved), "what moves was locked"

    @contextmanager
    def _in_order(self) -> Iterator[None]:
        """Give up a connection that has failed; say what is no bug as `DatabaseUnavailable`."""
        try:
            yield
        except BaseException as error:
            was_closed = self._connection is None or self._connection.closed
            self.close()
            if isinstance(error, psycopg2.Error) and (was_closed or _is_away(error)):
                raise DatabaseUnavailable(first_line(error)) from error
            raise


def copy(cursor: Any, statement: str, rows: str) -> None:
    """Bring rows in with a COPY statement; they are the text that it takes."""
    if rows:
        cursor.copy_expert(statement, StringIO(rows), size=1 << 20)


def _lock(connection: Any, stage: str, partitions: Collection[int]) -> dict[int, Place]:
    which = {"stage": stage, "partitions": list(partitions)}
    with connection.cursor() as cursor:
        cursor.execute(_SQL["lock"], which)
        if cursor.rowcount < len(partitions):
            # Some are locked by others, or have no place yet. It is there for all at once, so that nobody waits for it.
            cursor.execute(_SQL["introduce"], which)
            connection.commit()
            cursor.execute(_SQL["lock"], which)
        return {partition: Place(*place) for partition, *place in cursor.fetchall()}


def _columns(kind: Any, rows: Sequence[Any]) -> dict[str, list[Any]]:
    """Turn rows into arrays, under the names of their fields with an s."""
    names = [name if name.endswith("s") else f"{name}s" for name in kind._fields]
    return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))


def _is_away(error: psycopg2.Error) -> bool:
    if error.pgcode is None:
        return isinstance(error, psycopg2.OperationalError | psycopg2.InterfaceError)
    return str(error.pgcode).startswith(UNAVAILABLE + ALSO_AWAY)
