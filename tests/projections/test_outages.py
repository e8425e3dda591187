"""Whatever happens to PostgreSQL, to the worker or to reading, the tables become what the log says."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import psycopg2
import pytest

from mercuria.embedded.postgres import Postgres
from mercuria.kafka.cloudevents import read_wallet_event
from mercuria.kafka.crash import RecordError
from mercuria.projections.fetch_queue import MAX_WAITING
from mercuria.projections.rereading import GapError
from mercuria.projections.wallets.rows import Rows
from mercuria.projections.wallets.store import WalletTables
from tests.projections.conftest import as_owner, runner_of
from tests.projections.logs import Log, bring_in, fetched, model_of, random_log
from tests.projections.model import checkpoints, read_tables

WITHIN_S = 60.0


class Worker:
    """Reads a log and projects it, as a worker does."""

    def __init__(self, log: Log, url: str, random: Random, **options: Any) -> None:
        options = {"seek_takes_s": 0.2} | options
        self.runner = runner_of(
            WalletTables(url),
            Rows,
            read_wallet_event,
            self._seek,
            **options,
        )
        self.next = [0] * len(log)
        self.seeks: list[tuple[int, int]] = []
        self._log = log
        self._random = random

    async def read(self, partition: int) -> None:
        """Read a partition to its end, again and again."""
        while True:
            start = self.next[partition]
            end = min(len(self._log[partition]), start + self._random.randint(1, 8))
            if start == end:
                await asyncio.sleep(0.01)
                continue
            self.next[partition] = end
            await self.runner.take(partition, fetched(self._log, partition, start, end))

    async def _seek(self, partition: int, offset: int) -> None:
        self.seeks.append((partition, offset))
        self.next[partition] = offset


@asynccontextmanager
async def running(worker: Worker, log: Log) -> AsyncIterator[asyncio.Task[None]]:
    """Let a worker work; yield the task that writes."""
    tasks = [asyncio.create_task(worker.read(partition)) for partition in range(len(log))]
    writing = asyncio.create_task(worker.runner.run())
    try:
        yield writing
    finally:
        for task in [*tasks, writing]:
            task.cancel()
        await asyncio.wait([*tasks, writing])


async def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(WITHIN_S):
        while True:
            if condition():
                return
            await asyncio.sleep(0.01)


def is_done(worker: Worker, log: Log) -> bool:
    """Return whether all of a log is projected, as the worker knows."""
    known = worker.runner.checkpoints
    return all(number in known and known[number].read == len(log[number]) - 1 for number in range(len(log)))


@pytest.fixture
def log(random: Random) -> Log:
    """Return a log that has something in each partition."""
    return random_log(random, 400)


async def test_a_killed_postgresql_is_waited_for_and_nothing_is_lost_or_doubled(
    url: str, postgres: Postgres, log: Log, random: Random, caplog: pytest.LogCaptureFixture
) -> None:
    worker = Worker(log, url, random)
    caplog.set_level(logging.WARNING)
    async with running(worker, log):
        for _ in range(3):
            before = sum(checkpoint.read for checkpoint in worker.runner.checkpoints.values())
            await until(lambda least=before + 20: progress(worker) > least or is_done(worker, log))  # type: ignore[misc]
            await asyncio.to_thread(postgres.kill)
            await asyncio.sleep(random.random() / 2)
            await asyncio.to_thread(postgres.start)
        await until(lambda: is_done(worker, log))
    assert read_tables(url) == model_of(log).comparable()
    said = [
        record.getMessage()
        for record in caplog.records
        if record.name == "mercuria.projections.database_outage"
    ]
    assert 1 <= sum("is away" in each for each in said) <= 3
    assert sum("is back" in each for each in said) == sum("is away" in each for each in said)


def progress(worker: Worker) -> int:
    return sum(checkpoint.read for checkpoint in worker.runner.checkpoints.values())


async def test_a_postgresql_that_is_away_at_first_is_waited_for_with_little_in_memory(
    url: str, postgres: Postgres, log: Log, random: Random
) -> None:
    await asyncio.to_thread(postgres.stop)
    try:
        worker = Worker(log, url, random)
        async with running(worker, log):
            await until(lambda: worker.runner.outage.is_on)
            read = worker.next[0]
            await until(lambda: worker.next[0] >= read)
            # One more is in the reader's hands.
            assert all(worker.next[number] <= 8 * (MAX_WAITING + 1) for number in range(len(log)))
            await asyncio.to_thread(postgres.start)
            await until(lambda: is_done(worker, log))
    finally:
        await asyncio.to_thread(postgres.start)
    assert read_tables(url) == model_of(log).comparable()


async def test_a_worker_stops_beside_a_frozen_postgresql_and_the_next_one_goes_on(
    url: str, postgres: Postgres, log: Log, random: Random
) -> None:
    first, second = Worker(log, url, random), Worker(log, url, random)
    try:
        async with running(first, log):
            await until(lambda: progress(first) > 20)
            postgres.suspend()
            await until(lambda: first.runner.is_waiting(0))
        # It came here, so it does not hang.
    finally:
        postgres.resume()
    async with running(second, log):
        await until(lambda: is_done(second, log))
    assert read_tables(url) == model_of(log).comparable()


async def test_what_was_written_and_not_acknowledged_comes_again_and_changes_nothing(
    url: str, log: Log, random: Random
) -> None:
    for _ in range(2):
        worker = Worker(log, url, random)
        async with running(worker, log):
            await until(lambda its=worker: is_done(its, log))  # type: ignore[misc]
    assert read_tables(url) == model_of(log).comparable()


async def test_two_workers_may_write_the_same_partitions(url: str, log: Log, random: Random) -> None:
    one, other = Worker(log, url, random), Worker(log, url, random)
    async with running(one, log), running(other, log):
        await until(lambda: is_done(one, log) or is_done(other, log))
    assert read_tables(url) == model_of(log).comparable()


async def test_what_reading_left_out_is_read_again(url: str, log: Log, random: Random) -> None:
    worker = Worker(log, url, random)
    worker.next[1] = 10
    async with running(worker, log):
        await until(lambda: is_done(worker, log))
    assert worker.seeks[0] == (1, 0)
    assert read_tables(url) == model_of(log).comparable()


async def test_tables_that_are_emptied_are_filled_again(
    url: str, writers: list[WalletTables], log: Log, random: Random
) -> None:
    worker = Worker(log, url, random)
    worker.next = [len(events) // 2 for events in log]
    # As when somebody rebuilds the tables while a worker is at the end of the log.
    async with running(worker, log):
        await until(lambda: is_done(worker, log))
    assert read_tables(url) == model_of(log).comparable()


async def test_a_gap_that_stays_ends_the_worker(url: str, log: Log, random: Random) -> None:
    gone = [[*events] for events in log]
    worker = Worker(gone, url, random, seek_takes_s=0.01)

    async def read_only_later_ones() -> None:
        while True:
            await worker.runner.take(1, fetched(gone, 1, 5, 10))

    reading = asyncio.create_task(read_only_later_ones())
    try:
        with pytest.raises(GapError):
            async with asyncio.timeout(WITHIN_S):
                await worker.runner.run()
    finally:
        reading.cancel()


async def test_a_partition_that_somebody_else_writes_holds_up_no_other(
    url: str, writers: list[WalletTables], log: Log, random: Random
) -> None:
    worker = Worker(log, url, random)
    writers[0].begin([1])
    async with running(worker, log):
        known = worker.runner.checkpoints
        await until(lambda: 0 in known and known[0].read == len(log[0]) - 1)
        assert 1 not in known
        writers[0].leave()
        await until(lambda: is_done(worker, log))
    assert read_tables(url) == model_of(log).comparable()


async def test_no_partition_waits_until_the_others_are_done(url: str, log: Log, random: Random) -> None:
    # A transaction takes a piece of one partition, or two.
    worker = Worker(log, url, random, max_rows=5)
    async with running(worker, log):
        known = worker.runner.checkpoints
        await until(
            lambda: any(checkpoint.read == len(log[number]) - 1 for number, checkpoint in known.items())
        )
        assert all(known[number].read > len(log[number]) / 2 for number in range(len(log)))
        await until(lambda: is_done(worker, log))
    assert read_tables(url) == model_of(log).comparable()


async def test_a_bug_is_raised_with_the_record_at_which_it_shows(
    url: str, writers: list[WalletTables], log: Log, random: Random
) -> None:
    bring_in(log, writers[0])
    connection = psycopg2.connect(as_owner(url))
    with connection, connection.cursor() as cursor:
        cursor.execute("DELETE FROM positions")
    connection.close()
    worker = Worker(log, url, random)
    async with running(worker, log) as writing:
        with pytest.raises(RecordError, match="offset 0 ends this worker") as raised:
            async with asyncio.timeout(WITHIN_S):
                await asyncio.shield(writing)
    assert isinstance(raised.value.__cause__, psycopg2.errors.UniqueViolation)
    assert set(checkpoints(url).values()) == {(-1, -1)}
