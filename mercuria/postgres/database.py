"""PostgreSQL for the event loop: a bounded pool of aiopg connections, and named queries from .sql files.

This module alone translates the driver's errors into `DatabaseUnavailable` when PostgreSQL is unavailable.
Bulk writes do not use this module: they use psycopg2 in a thread.
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any

import aiopg
import psycopg2
from psycopg2.errors import QueryCanceled
from psycopg2.errors import UniqueViolation as UniqueViolation
from psycopg2.extensions import TRANSACTION_STATUS_IDLE
from psycopg2.extras import NamedTupleCursor

from mercuria.postgres.errors import first_line

CONNECT_TIMEOUT_S = 5.0
"""The timeout for a new connection, and for a free one."""
STATEMENT_TIMEOUT_S = 10.0
"""The timeout after which the server cancels a statement."""
ANSWER_TIMEOUT_S = STATEMENT_TIMEOUT_S + 2.0
"""The timeout after which the client drops the connection. The server reports its own timeout before."""
IDLE_TRANSACTION_TIMEOUT_S = 30.0
"""The timeout after which the server ends the transaction of an idle client, and releases its locks."""
PING_TIMEOUT_S = 2.0
PING_EVERY_S = 1.0
POOL_SIZE = 10
LONG_READS = 6
"""The maximum number of connections in use for slow queries: lists, statements and figures."""

UNAVAILABLE = ("08", "40", "53", "57", "58")
"""Classes of SQLSTATE: connection exception, transaction rollback (as for a deadlock), insufficient resources, operator
intervention, system error."""

_SET_UP = """\
SELECT set_config('statement_timeout', %(statement)s, false) AS statement,
    set_config('idle_in_transaction_session_timeout', %(transaction)s, false) AS transaction,
    set_config('timezone', 'UTC', false) AS timezone"""
_NAME = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)

Parameters = Mapping[str, Any] | Sequence[Any] | None


class DatabaseUnavailable(Exception):
    """PostgreSQL cannot be reached, or does not answer in time. The next call tries to connect again.

    If a COMMIT fails with this error, the transaction may or may not be committed.
    """


class Statements:
    """Methods that run statements. Parameters are bound: `%(name)s` in the text, and a mapping.

    Raises (all methods):
        DatabaseUnavailable: PostgreSQL is unavailable.
        psycopg2.Error: the statement is wrong. Callers may expect a `UniqueViolation`.
    """

    async def rows(self, sql: str, parameters: Parameters = None) -> list[Any]:
        """Run a statement, and return its rows as named tuples. Column names must be unique."""
        return (await self._run(sql, parameters))[0]

    async def row(self, sql: str, parameters: Parameters = None) -> Any | None:
        """Run a statement that returns at most one row, and return the row or None."""
        rows = await self.rows(sql, parameters)
        assert len(rows) <= 1, f"{len(rows)} rows where one was expected: {sql}"
        return rows[0] if rows else None

    async def execute(self, sql: str, parameters: Parameters = None) -> int:
        """Run a statement, and return the number of rows that it changed."""
        return (await self._run(sql, parameters))[1]

    async def _run(self, sql: str, parameters: Parameters) -> tuple[list[Any], int]:
        raise NotImplementedError


class Transaction(Statements):
    """Statements that take effect together or not at all."""

    def __init__(self, connection: aiopg.Connection) -> None:
        self._connection = connection

    async def _run(self, sql: str, parameters: Parameters) -> tuple[list[Any], int]:
        return await _run(self._connection, sql, parameters)


class Database(Statements):
    """A database with a pool of connections, which are opened on demand.

    Each statement commits by itself. The pool belongs to the event loop that uses it first.

    Args:
        url: a libpq URL.
        size: the maximum number of connections.
        patience_s: the timeout for a free connection.
        statement_timeout_s: the timeout of a statement.
    """

    def __init__(
        self,
        url: str,
        *,
        size: int = POOL_SIZE,
        patience_s: float = CONNECT_TIMEOUT_S,
        statement_timeout_s: float = STATEMENT_TIMEOUT_S,
    ) -> None:
        self._url = url
        self._size = size
        self._patience_s = patience_s
        self._statement_timeout_s = statement_timeout_s
        self._pool: aiopg.Pool | None = None
        # aiopg's pool has a queue of its own, but does not wake it when a broken connection leaves room for a new one.
        self._room = asyncio.Semaphore(size)
        self._pinging = asyncio.Lock()
        self._answered_s = self._silent_s = -PING_EVERY_S

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """Begin a transaction; commit it at the end of the block, or roll it back when the block raises."""
        async with self._connection() as connection:
            await _run(connection, "BEGIN", None)
            try:
                yield Transaction(connection)
            except Exception:
                if not connection.closed:
                    await _run(connection, "ROLLBACK", None)
                raise
            # A cancelled block cannot run another statement: its connection is dropped, which rolls back as well.
            await _commit(connection)

    def share(self, size: int) -> "Share":
        """Return a view of this database whose users together hold at most `size` of its connections."""
        return Share(self, size, self._patience_s)

    async def ping(self) -> bool:
        """Return whether PostgreSQL answers. A check runs at most once a second, for at most two seconds."""
        async with self._pinging:
            known_s = max(self._answered_s, self._silent_s)
            if time.monotonic() - known_s < PING_EVERY_S:
                return self._answered_s > self._silent_s
            try:
                async with asyncio.timeout(PING_TIMEOUT_S):
                    await self.row("SELECT 1")
            except (DatabaseUnavailable, TimeoutError):
                self._silent_s = time.monotonic()
            return self._answered_s > self._silent_s

    async def close(self) -> None:
        """Close all connections; a later use opens new ones."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.terminate()
            await pool.wait_closed()

    async def _run(self, sql: str, parameters: Parameters) -> tuple[list[Any], int]:
        try:
            async with self._connection() as connection:
                outcome = await _run(connection, sql, parameters)
        except DatabaseUnavailable:
            # The outage may be over already, so the next ping asks again.
            self._answered_s = -PING_EVERY_S
            raise
        self._answered_s = time.monotonic()
        return outcome

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[aiopg.Connection]:
        """Lend a connection. An intact one returns to the pool; a broken or busy one is dropped."""
        async with _place(self._room, self._patience_s):
            if self._pool is None:
                # A pool without initial connections is created without waiting, so two tasks never create two pools.
                self._pool = await self._make_pool()
            pool = self._pool
            with _driver_errors():
                connection = await pool.acquire()
            try:
                yield connection
            finally:
                if (
                    not connection.closed
                    and connection.raw.get_transaction_status() != TRANSACTION_STATUS_IDLE
                ):
                    connection.close()
                # The result is not awaited, because a cancelled task must give its connection back, too.
                pool.release(connection)

    async def _make_pool(self) -> aiopg.Pool:
        return await aiopg.create_pool(
            self._url,
            minsize=0,
            maxsize=self._size,
            timeout=CONNECT_TIMEOUT_S,
            enable_hstore=False,  # hstore costs a query for each connection.
            on_connect=self._set_up,
            fallback_application_name="mercuria",
        )

    async def _set_up(self, connection: aiopg.Connection) -> None:
        settings = {
            "statement": f"{self._statement_timeout_s * 1000:.0f}",
            "transaction": f"{IDLE_TRANSACTION_TIMEOUT_S * 1000:.0f}",
        }
        try:
            await _run(connection, _SET_UP, settings)
        except BaseException:
            # The pool does not know the connection yet.
            connection.close()
            raise


class Share(Statements):
    """A database for slow queries. However many run, connections remain for other queries."""

    def __init__(self, database: Database, size: int, patience_s: float) -> None:
        self._database = database
        self._room = asyncio.Semaphore(size)
        self._patience_s = patience_s

    async def _run(self, sql: str, parameters: Parameters) -> tuple[list[Any], int]:
        async with _place(self._room, self._patience_s):
            return await self._database._run(sql, parameters)


@asynccontextmanager
async def _place(room: asyncio.Semaphore, patience_s: float) -> AsyncIterator[None]:
    """Wait for a free place in `room`, and hold it during the block."""
    try:
        async with asyncio.timeout(patience_s):
            await room.acquire()
    except TimeoutError:
        raise DatabaseUnavailable(f"No connection was free for {patience_s:g} s.") from None
    try:
        yield
    finally:
        room.release()


@cache
def queries(package: str, file: str) -> Mapping[str, str]:
    """Return the named statements of a .sql file. Each follows a line like `-- name: insert_user`."""
    text = files(package).joinpath(file).read_text("utf-8")
    head, *parts = _NAME.split(text)
    assert not re.sub(r"^--.*$", "", head, flags=re.MULTILINE).strip(), (
        f"{file} has a statement without a name"
    )
    named = dict(zip(parts[::2], (sql.strip().rstrip(";") for sql in parts[1::2]), strict=True))
    assert len(named) == len(parts) // 2, f"{file} has two statements of one name"
    return MappingProxyType(named)


async def _run(connection: aiopg.Connection, sql: str, parameters: Parameters) -> tuple[list[Any], int]:
    """Run a statement on a connection; return its rows, and the number of rows returned or changed."""
    with _driver_errors(connection):
        async with connection.cursor(cursor_factory=NamedTupleCursor, timeout=ANSWER_TIMEOUT_S) as cursor:
            await cursor.execute(sql, parameters)
            rows = await cursor.fetchall() if cursor.description else []
            return rows, cursor.rowcount


async def _commit(connection: aiopg.Connection) -> None:
    with _driver_errors(connection):
        async with connection.cursor(timeout=ANSWER_TIMEOUT_S) as cursor:
            await cursor.execute("COMMIT")
            # After a failed statement, the server answers with ROLLBACK and no error; nothing was committed then.
            assert cursor.statusmessage == "COMMIT", "a statement failed, and the block went on"


@contextmanager
def _driver_errors(connection: aiopg.Connection | None = None) -> Iterator[None]:
    """Translate the driver's errors of an unavailable server into `DatabaseUnavailable`; re-raise others."""
    try:
        yield
    except psycopg2.Error as error:
        if _is_unavailable(error) or (connection is not None and connection.closed):
            raise DatabaseUnavailable(_sentence(error)) from error
        raise
    except TimeoutError as error:
        raise DatabaseUnavailable("PostgreSQL does not answer in time.") from error
    except OSError as error:
        # aiopg watches the descriptor of the address that libpq tried first, which is closed when it tries another one.
        raise DatabaseUnavailable(f"PostgreSQL is away: {error}") from error
    except asyncio.CancelledError as error:
        # When the server cancels a statement, aiopg cancels the waiting task, although no caller has cancelled it.
        if isinstance(error.__context__, QueryCanceled):
            raise DatabaseUnavailable("PostgreSQL gave a statement up.") from error.__context__
        raise


def _is_unavailable(error: psycopg2.Error) -> bool:
    if error.pgcode is None:
        return isinstance(error, psycopg2.OperationalError)
    return str(error.pgcode).startswith(UNAVAILABLE)


def _sentence(error: psycopg2.Error) -> str:
    return f"PostgreSQL is away: {first_line(error)}"
