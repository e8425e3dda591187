"""The store of a projection: writes rows, checkpoints and the outbox in one transaction.

Bulk rows are written with COPY, which aiopg does not support. So the store uses psycopg2, which blocks and
must run in a thread.
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
from mercuria.projections.checkpoints import Checkpoint
from mercuria.projections.registry import PROJECTIONS

T = TypeVar("T")

CONNECT_TIMEOUT_S = 5
STATEMENT_TIMEOUT_S = 60
IDLE_TIMEOUT_S = 10
"""The timeout after which the server ends the transaction of an idle worker, and releases its partitions."""
SILENCE_S = 15
"""The timeout after which an unresponsive server counts as gone."""

ALSO_AWAY = ("25P03", "40001", "40P01", "42P01", "42501", "42704", "42703", "55P03")
"""Further SQLSTATE classes that are not bugs of the rows: the transaction was ended, or must be retried, or
the schema or its privileges do not exist yet.

https://www.postgresql.org/docs/18/errcodes-appendix.html
"""

_SQL = queries("mercuria.projections", "store.sql")


class OutboxRow(NamedTuple):
    """The events that one transaction emits in a partition, up to the event with the number `sequence`."""

    partition: int
    sequence: int
    records: bytes


class ProjectionTables(Generic[T]):
    """The tables of a projection, with one writer at a time. `T` is the type of its rows.

    Call `begin`, then perhaps `left`, then `write` or `leave`. After `DatabaseUnavailable`, `begin`
    reconnects.

    Raises (all methods):
        DatabaseUnavailable: PostgreSQL is unavailable, or not migrated. Nothing was written, unless a
            COMMIT was in flight.
        psycopg2.Error: a bug.
    """

    name: ClassVar[str]
    """The name of the projection, under which its checkpoints are stored (`projections.registry`)."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: Any = None

    def begin(self, partitions: Collection[int]) -> dict[int, Checkpoint]:
        """Begin a transaction, and lock the checkpoints of partitions.

        Returns:
            The checkpoints that no other worker has locked: a partition's previous owner may still write.
        """
        with self._in_order():
            if self._connection is None:
                self._connect()
            checkpoints = _lock(self._connection, self.name, partitions)
            with self._connection.cursor() as cursor:
                self._look(cursor, checkpoints)
            return checkpoints

    def left(self, partitions: Collection[int]) -> list[OutboxRow]:
        """Return the outbox rows of locked partitions, in order."""
        with self._in_order(), self._connection.cursor() as cursor:
            cursor.execute(self._outbox("left"), {"partitions": list(partitions)})
            return [OutboxRow(partition, sequence, bytes(records)) for partition, sequence, records in cursor]

    def write(
        self,
        rows: T,
        moved: Mapping[int, Checkpoint],
        outbound: Sequence[OutboxRow] = (),
        published: Mapping[int, int] | None = None,
    ) -> None:
        """Write rows, the checkpoints after them and the events that they emit, and commit.

        Args:
            published: by partition, the number up to which Kafka has the events; they are removed from the
                outbox.
        """
        with self._in_order(), self._connection.cursor() as cursor:
            if moved:
                self._write(cursor, rows)
                self._move(cursor, moved)
            if outbound:
                cursor.execute(self._outbox("put"), _columns(OutboxRow, outbound))
            if published:
                partitions, sequences = list(published), list(published.values())
                cursor.execute(self._outbox("drop"), {"partitions": partitions, "sequences": sequences})
            self._connection.commit()

    def leave(self) -> None:
        """End the transaction without writing."""
        with self._in_order():
            self._connection.rollback()

    def close(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def interrupt(self) -> None:
        """Break the connection, so that a thread waiting for the server returns. Any thread may call this."""
        connection = self._connection
        if connection is None or connection.closed:
            return
        with suppress(psycopg2.Error, OSError), socket.socket(fileno=os.dup(connection.fileno())) as its:
            its.shutdown(socket.SHUT_RDWR)

    # Hooks for subclasses.

    def _set_up(self, cursor: Any) -> None:
        """Prepare a new connection."""

    def _look(self, cursor: Any, checkpoints: dict[int, Checkpoint]) -> None:
        """Read what the next rows of these partitions follow; remove partitions that must not be written."""

    def _write(self, cursor: Any, rows: T) -> None:
        """Write rows."""
        raise NotImplementedError

    # Implementation.

    def _connect(self) -> None:
        self._connection = psycopg2.connect(
            self._url,
            connect_timeout=CONNECT_TIMEOUT_S,
            tcp_user_timeout=SILENCE_S * 1000,
            keepalives_idle=SILENCE_S // 3,
            keepalives_interval=SILENCE_S // 3,
            keepalives_count=2,
            fallback_application_name=f"mercuria {self.name}",
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
        outbox = PROJECTIONS[self.name].outbox
        assert outbox is not None, "this projection emits nothing"
        return sql.SQL(_SQL[name]).format(outbox=sql.Identifier(outbox))

    def _move(self, cursor: Any, moved: Mapping[int, Checkpoint]) -> None:
        checkpoints = list(moved.values())
        parameters = {
            "stage": self.name,
            "partitions": list(moved),
            "read_offsets": [checkpoint.read for checkpoint in checkpoints],
            "command_offsets": [checkpoint.command for checkpoint in checkpoints],
            "sequences": [checkpoint.sequence for checkpoint in checkpoints],
            "told": [checkpoint.emitted for checkpoint in checkpoints],
            "sent": [checkpoint.sent for checkpoint in checkpoints],
        }
        cursor.execute(_SQL["move"], parameters)
        assert cursor.rowcount == len(moved), "what moves was locked"

    @contextmanager
    def _in_order(self) -> Iterator[None]:
        """Close a connection that has failed; raise errors that are not bugs as `DatabaseUnavailable`."""
        try:
            yield
        except BaseException as error:
            was_closed = self._connection is None or self._connection.closed
            self.close()
            if isinstance(error, psycopg2.Error) and (was_closed or _is_away(error)):
                raise DatabaseUnavailable(first_line(error)) from error
            raise


def copy(cursor: Any, statement: str, rows: str) -> None:
    """Write rows with a COPY statement; `rows` is its payload."""
    if rows:
        cursor.copy_expert(statement, StringIO(rows), size=1 << 20)


def _lock(connection: Any, stage: str, partitions: Collection[int]) -> dict[int, Checkpoint]:
    which = {"stage": stage, "partitions": list(partitions)}
    with connection.cursor() as cursor:
        cursor.execute(_SQL["lock"], which)
        if cursor.rowcount < len(partitions):
            # Some are locked by other workers, or have no checkpoint yet. New ones are committed at once, so that no
            # other worker waits for them.
            cursor.execute(_SQL["introduce"], which)
            connection.commit()
            cursor.execute(_SQL["lock"], which)
        return {partition: Checkpoint(*checkpoint) for partition, *checkpoint in cursor.fetchall()}


def _columns(kind: Any, rows: Sequence[Any]) -> dict[str, list[Any]]:
    """Turn rows into arrays, by the names of their fields with an s."""
    names = [name if name.endswith("s") else f"{name}s" for name in kind._fields]
    return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))


def _is_away(error: psycopg2.Error) -> bool:
    if error.pgcode is None:
        return isinstance(error, psycopg2.OperationalError | psycopg2.InterfaceError)
    return str(error.pgcode).startswith(UNAVAILABLE + ALSO_AWAY)
