"""The pool: what it gives, what it does when PostgreSQL is away, and that no broken connection stays in it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import psycopg2
import pytest
from psycopg2.errors import SyntaxError as SqlSyntaxError

from mercuria.embedded.stack import Stack
from mercuria.postgres.database import (
    PING_TIMEOUT_S,
    POOL_SIZE,
    Database,
    DatabaseUnavailable,
    UniqueViolation,
    queries,
)

APPLICATION = "mercuria"


@pytest.fixture
async def small(servers: Stack) -> AsyncIterator[Database]:
    """Return a database with two connections and little patience."""
    opened = Database(servers.env["MERCURIA_DATABASE"], size=2, patience_s=0.5, statement_timeout_s=0.3)
    yield opened
    await opened.close()


@pytest.fixture
async def table(servers: Stack) -> AsyncIterator[str]:
    """Return the name of an empty table with one unique column `word`."""
    owner = Database(servers.env["MERCURIA_DATABASE_OWNER"], size=1)
    await owner.execute("CREATE TABLE words (word text CONSTRAINT one_of_each UNIQUE)")
    await owner.execute("GRANT SELECT, INSERT ON words TO mercuria_app")
    yield "words"
    await owner.execute("DROP TABLE words")
    await owner.close()


async def words(database: Database) -> list[str]:
    """Return the rows of the table."""
    return [row.word for row in await database.rows("SELECT word FROM words ORDER BY word")]


async def end_connections_of_others(database: Database) -> int:
    """End all connections of Mercuria but the one that this uses; return how many there were."""
    ended = await database.rows(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        " WHERE application_name = %s AND pid <> pg_backend_pid()",
        (APPLICATION,),
    )
    return len(ended)


# What it gives.


async def test_rows_are_named_and_times_are_utc(database: Database) -> None:
    row = await database.row("SELECT 1 AS one, timestamptz '2026-01-01T02:00+02' AS moment, NULL AS nothing")
    assert row is not None
    assert (row.one, row.moment.isoformat(), row.nothing) == (1, "2026-01-01T00:00:00+00:00", None)
    assert await database.row("SELECT 1 WHERE false") is None


async def test_parameters_are_bound(database: Database, table: str) -> None:
    evil = "'); DROP TABLE words; --%s"
    assert await database.execute("INSERT INTO words VALUES (%(word)s)", {"word": evil}) == 1
    assert await words(database) == [evil]


async def test_a_bug_stays_a_bug_and_leaves_the_connection_good(small: Database) -> None:
    for _ in range(5):
        with pytest.raises(SqlSyntaxError):
            await small.rows("SELEKT 1")
        with pytest.raises(psycopg2.Error):
            await small.rows("SELECT %s", (object(),))
    assert await small.row("SELECT 1 AS one") == (1,)


async def test_a_second_of_its_kind_can_be_caught(database: Database, table: str) -> None:
    await database.execute("INSERT INTO words VALUES ('a')")
    with pytest.raises(UniqueViolation) as caught:
        await database.execute("INSERT INTO words VALUES ('a')")
    assert caught.value.diag.constraint_name == "one_of_each"


async def test_more_tasks_than_connections_take_turns(small: Database) -> None:
    found = await asyncio.gather(*(small.row("SELECT %s::int AS number", (n,)) for n in range(50)))
    assert [row.number for row in found if row is not None] == list(range(50))


# Transactions.


async def test_a_transaction_has_all_of_its_effect_at_its_end(database: Database, table: str) -> None:
    async with database.transaction() as transaction:
        await transaction.execute("INSERT INTO words VALUES ('a')")
        await transaction.execute("INSERT INTO words VALUES ('b')")
        assert await words(database) == []
    assert await words(database) == ["a", "b"]


async def test_a_transaction_that_raises_has_no_effect(small: Database, table: str) -> None:
    async def fail() -> None:
        async with small.transaction() as transaction:
            await transaction.execute("INSERT INTO words VALUES ('a')")
            raise KeyError

    for _ in range(5):
        with pytest.raises(KeyError):
            await fail()
    assert await words(small) == []


async def test_a_transaction_may_return_from_its_middle(database: Database, table: str) -> None:
    async def insert() -> str:
        async with database.transaction() as transaction:
            await transaction.execute("INSERT INTO words VALUES ('a')")
            return "done"

    assert (await insert(), await words(database)) == ("done", ["a"])


async def test_a_swallowed_failure_is_not_taken_for_a_commit(database: Database, table: str) -> None:
    async def swallow() -> None:
        async with database.transaction() as transaction:
            await transaction.execute("INSERT INTO words VALUES ('b')")
            with suppress(UniqueViolation):
                await transaction.execute("INSERT INTO words VALUES ('a')")

    await database.execute("INSERT INTO words VALUES ('a')")
    with pytest.raises(AssertionError, match="the block went on"):
        await swallow()
    assert await words(database) == ["a"]


async def test_a_cancelled_transaction_gives_no_dirty_connection_back(small: Database, table: str) -> None:
    begun = [asyncio.Event() for _ in range(2)]

    async def stand_still(event: asyncio.Event) -> None:
        async with small.transaction() as transaction:
            await transaction.execute("INSERT INTO words VALUES (%s)", (str(id(event)),))
            event.set()
            await asyncio.Event().wait()

    tasks = [asyncio.create_task(stand_still(event)) for event in begun]
    for event in begun:
        await event.wait()
    waits = asyncio.create_task(small.row("SELECT 1 AS one"))
    for task in tasks:
        task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [asyncio.CancelledError] * 2
    assert await waits == (1,), "whoever waits gets the place of a dropped connection"
    assert await words(small) == []


async def test_a_cancelled_statement_gives_no_busy_connection_back(small: Database) -> None:
    for _ in range(4):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await small.row("SELECT pg_sleep(0.25)")
    assert await small.row("SELECT 1 AS one") == (1,)


# When PostgreSQL is away.


async def test_a_statement_that_takes_too_long_is_given_up_and_cancels_nobody(small: Database) -> None:
    for _ in range(3):
        with pytest.raises(DatabaseUnavailable, match="gave a statement up"):
            await small.row("SELECT pg_sleep(5)")
    with pytest.raises(DatabaseUnavailable, match="gave a statement up"):
        async with small.transaction() as transaction:
            await transaction.row("SELECT pg_sleep(5)")
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()
    assert await small.row("SELECT 1 AS one") == (1,)


async def test_who_finds_no_free_connection_is_told_so(small: Database) -> None:
    async with small.transaction(), small.transaction():
        with pytest.raises(DatabaseUnavailable, match="No connection was free"):
            await small.row("SELECT 1")
    assert await small.row("SELECT 1 AS one") == (1,)


async def test_what_takes_long_leaves_connections_for_all_else(database: Database) -> None:
    long_reads = database.share(POOL_SIZE - 1)
    long = [asyncio.create_task(long_reads.execute("SELECT pg_sleep(1)")) for _ in range(2 * POOL_SIZE)]
    await asyncio.sleep(0)
    assert await database.row("SELECT 1 AS one") == (1,)
    assert not any(task.done() for task in long)
    assert await asyncio.gather(*long) == [1] * len(long)


async def test_broken_connections_are_replaced(small: Database, database: Database) -> None:
    await asyncio.gather(*(small.row("SELECT pg_sleep(0.01)") for _ in range(4)))
    assert await end_connections_of_others(database) == 2
    # They are found broken when they are used, if not before; then everybody who waits gets a new one.
    outcomes = await asyncio.gather(*(small.row("SELECT 1 AS one") for _ in range(6)), return_exceptions=True)
    assert sum(isinstance(outcome, DatabaseUnavailable) for outcome in outcomes) <= 2
    assert sum(outcome == (1,) for outcome in outcomes) >= 4
    assert await small.row("SELECT 1 AS one") == (1,)


async def test_a_transaction_that_loses_its_connection_says_so(small: Database, database: Database) -> None:
    async def lose() -> None:
        async with small.transaction() as transaction:
            await transaction.row("SELECT 1")
            await end_connections_of_others(database)
            await transaction.row("SELECT 1")

    with pytest.raises(DatabaseUnavailable):
        await lose()
    assert await small.row("SELECT 1 AS one") == (1,)


async def test_it_reconnects_when_postgresql_is_back(servers: Stack, small: Database) -> None:
    assert await small.ping()
    await asyncio.to_thread(servers.postgres.stop)
    outcomes = await asyncio.gather(*(small.row("SELECT 1") for _ in range(6)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [DatabaseUnavailable] * 6
    assert not await small.ping()
    await asyncio.to_thread(servers.postgres.start)
    assert await small.row("SELECT 1 AS one") == (1,)
    assert await small.ping()


async def test_many_who_ask_whether_it_answers_wait_for_one_answer() -> None:
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    silent = Database(f"postgresql://127.0.0.1:{server.sockets[0].getsockname()[1]}/mercuria")
    async with asyncio.timeout(2 * PING_TIMEOUT_S):
        assert await asyncio.gather(*(silent.ping() for _ in range(10))) == [False] * 10
    await silent.close()
    server.close()


async def test_nothing_listens(tmp_path: Path) -> None:
    nowhere = Database("postgresql://127.0.0.1:1/mercuria")
    with pytest.raises(DatabaseUnavailable):
        await nowhere.row("SELECT 1")
    with pytest.raises(DatabaseUnavailable):
        async with nowhere.transaction():
            raise AssertionError("there is no transaction")
    assert not await nowhere.ping()
    await nowhere.close()


async def test_a_closed_database_opens_again(database: Database) -> None:
    assert await database.row("SELECT 1 AS one") == (1,)
    await database.close()
    await database.close()
    assert await database.row("SELECT 1 AS one") == (1,)


# Named queries.


def test_queries_have_names() -> None:
    named = queries("mercuria.auth", "accounts.sql")
    assert named["user_by_id"].startswith("SELECT id, email")
    assert all(not sql.endswith(";") and "-- name" not in sql for sql in named.values())
