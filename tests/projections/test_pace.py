"""How often a stage writes: at once when all was quiet, together what comes while it rests, and never too late."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

from mercuria.kafka.cloudevents import read_wallet_event
from mercuria.projections.checkpoints import Checkpoint
from mercuria.projections.fetch_queue import MAX_WAITING
from mercuria.projections.wallets.rows import Rows
from mercuria.projections.wallets.store import WalletTables
from tests.projections.conftest import runner_of, writing
from tests.projections.logs import Log, fetched, random_log
from tests.projections.test_outages import WITHIN_S, until


class Counting(WalletTables):
    """PostgreSQL's tables, which count the transactions."""

    transactions = 0

    def begin(self, partitions: Any) -> dict[int, Checkpoint]:
        """Begin one."""
        self.transactions += 1
        return super().begin(partitions)


class Paced:
    """A stage with a pace, to which a test gives pieces of a log."""

    def __init__(self, url: str, log: Log, **options: Any) -> None:
        self.tables = Counting(url)
        self.runner = runner_of(
            self.tables,
            Rows,
            read_wallet_event,
            self._seek,
            **options,
        )
        self._log = log

    async def give(self, partition: int, start: int, end: int) -> None:
        await self.runner.take(partition, fetched(self._log, partition, start, end))

    async def written(self, partition: int, end: int) -> None:
        """Wait until a partition is written up to before `end`."""
        await until(lambda: self.runner.checkpoints.get(partition, Checkpoint()).read >= end - 1)

    async def _seek(self, _partition: int, _offset: int) -> None:
        raise AssertionError("nothing is missing")


@asynccontextmanager
async def paced(url: str, log: Log, **options: Any) -> AsyncIterator[Paced]:
    """Run a stage with a pace."""
    one = Paced(url, log, **options)
    async with writing(one.runner):
        yield one


async def test_what_comes_while_it_rests_is_written_together(url: str, random: Random) -> None:
    log = random_log(random, 400)
    async with paced(url, log, throttle_s=2) as one:
        await one.give(0, 0, 1)
        await one.written(0, 1)
        for number in range(1, 5):
            await one.give(0, number, number + 1)
            await one.give(1, number - 1, number)
        assert one.runner.checkpoints[0].read == 0
        await one.written(0, 5)
        await one.written(1, 4)
    assert one.tables.transactions == 2


async def test_it_does_not_rest_when_there_is_no_room_for_what_comes(url: str, random: Random) -> None:
    log = random_log(random, 400)
    async with paced(url, log, throttle_s=10 * WITHIN_S) as one:
        await one.give(0, 0, 1)
        await one.written(0, 1)
        for number in range(1, 1 + MAX_WAITING):
            await one.give(0, number, number + 1)
        await one.written(0, 1 + MAX_WAITING)
    assert one.tables.transactions == 2


async def test_it_does_not_rest_when_there_is_enough(url: str, random: Random) -> None:
    log = random_log(random, 400)
    async with paced(url, log, throttle_s=10 * WITHIN_S, enough=20) as one:
        await one.give(0, 0, 1)
        await one.written(0, 1)
        await one.give(0, 1, 11)
        await one.give(1, 0, 10)
        await one.written(0, 11)
        await one.written(1, 10)
    assert one.tables.transactions == 2
