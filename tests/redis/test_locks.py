"""Partition locks: whose a partition is, whatever becomes of Redis."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis as Client

from mercuria.embedded.redis import Redis
from mercuria.redis.leases import LIFE_S, RENEW_EVERY_S, PartitionLocks
from tests.redis.conftest import Files, away, stopped, until

LOCK = "mercuria:lock:wallets:3"


class Worker:
    """A worker, as far as its locks see it."""

    def __init__(self, redis: Client, name: str, generation: int) -> None:
        self.generation = generation
        self.partitions = [3]
        self.locks = PartitionLocks(redis, name, lambda: self.generation, lambda: self.partitions)

    @property
    def has(self) -> bool:
        """Whether it can prove that partition 3 is its own."""
        return self.locks.is_held(3)

    @property
    def epoch(self) -> int:
        """The epoch of partition 3."""
        return self.locks.epoch(3)


@pytest.fixture
async def worker(redis: Client) -> AsyncIterator[Worker]:
    """Return a worker that has the lock of partition 3."""
    made = Worker(redis, "worker-1", 5)
    async with made.locks:
        await until(lambda: made.has)
        yield made


@pytest.fixture
async def workers(redis: Client, worker: Worker) -> AsyncIterator[list[Worker]]:
    """Return it, and another one in the same generation that would have the same lock."""
    rival = Worker(redis, "worker-2", 5)
    async with rival.locks:
        yield [worker, rival]


async def test_one_of_a_generation_has_a_lock(redis: Client, workers: list[Worker]) -> None:
    first, second = workers
    for _ in range(20):
        assert first.has and not second.has
        await asyncio.sleep(0.05)
    assert await redis.get(LOCK) == b"5:worker-1"
    assert 0 < await redis.pttl(LOCK) <= 1000 * LIFE_S


async def test_a_newer_generation_takes_a_lock_at_once_and_an_older_one_never(
    redis: Client, workers: list[Worker]
) -> None:
    first, second = workers
    second.generation = 6
    began_s = time.monotonic()
    await asyncio.wait_for(second.locks.prove(3), 1)
    assert time.monotonic() - began_s < 0.5
    assert await redis.get(LOCK) == b"6:worker-2"
    # The first one, which has slept meanwhile, learns of it with its next renewal, and never gets it back.
    await until(lambda: not first.has)
    waiting = asyncio.create_task(first.locks.prove(3))
    await asyncio.sleep(1)
    assert not waiting.done() and second.has
    waiting.cancel()


async def test_a_lock_of_the_past_holds_nobody_up(redis: Client, worker: Worker) -> None:
    await redis.set(LOCK, "4:worker-2", px=600_000)
    await until(lambda: redis_has(redis, b"5:worker-1"), RENEW_EVERY_S + 1)


@pytest.mark.parametrize("foreign", ["", "nonsense", ":", "x:y", "5"])
async def test_what_is_no_lock_holds_nobody_up(redis: Client, worker: Worker, foreign: str) -> None:
    await redis.set(LOCK, foreign, px=600_000)
    await until(lambda: redis_has(redis, b"5:worker-1"), RENEW_EVERY_S + 1)


async def test_a_lock_of_the_future_is_respected_until_it_is_over(redis: Client, worker: Worker) -> None:
    await redis.set(LOCK, "99:worker-9", px=4000)
    await until(lambda: not worker.has, RENEW_EVERY_S + 1)
    await until(lambda: worker.has, 5)


async def test_a_partition_that_is_gone_is_not_held(redis: Client, workers: list[Worker]) -> None:
    first = workers[0]
    first.partitions = []
    await until(lambda: not first.has, RENEW_EVERY_S + 1)
    # Who has it next does not have to wait for the end of the old one.
    workers[1].generation = 6
    await asyncio.wait_for(workers[1].locks.prove(3), 1)


async def test_who_stops_lets_go(redis: Client, workers: list[Worker]) -> None:
    await workers[0].locks.stop()
    assert await redis.get(LOCK) in (None, b"5:worker-2")
    await asyncio.wait_for(workers[1].locks.prove(3), 1)


async def test_a_short_outage_is_not_noticed_and_a_long_one_pauses(server: Redis, worker: Worker) -> None:
    with stopped(server):
        began_s = time.monotonic()
        while time.monotonic() < began_s + LIFE_S - RENEW_EVERY_S - 1:
            assert worker.has and not worker.locks.is_redis_lost
            await asyncio.sleep(0.1)
        await until(lambda: not worker.has)
        await until(lambda: worker.locks.is_redis_lost)
        assert time.monotonic() - began_s < LIFE_S + 1
    await asyncio.wait_for(asyncio.gather(worker.locks.prove(3)), 2)
    assert not worker.locks.is_redis_lost


async def test_an_emptied_redis_has_the_lock_again_with_the_next_renewal(
    redis: Client, worker: Worker
) -> None:
    epoch = worker.epoch
    await redis.flushall()
    await until(lambda: redis_has(redis, b"5:worker-1"), RENEW_EVERY_S + 1)
    assert worker.has and worker.epoch >= epoch


async def test_each_owner_has_an_epoch_of_its_own(redis: Client, workers: list[Worker]) -> None:
    first, second = workers
    epochs = [first.epoch]
    for turn, each in enumerate((second, first, second), start=6):
        each.generation = turn
        await asyncio.wait_for(each.locks.prove(3), 1)
        await until(lambda owner=each: owner.epoch > epochs[-1])  # type: ignore[misc]
        epochs.append(each.epoch)


async def test_an_epoch_goes_on_when_a_partition_comes_back_and_nobody_else_had_it(worker: Worker) -> None:
    epoch = worker.epoch
    worker.partitions = []
    await until(lambda: not worker.has, RENEW_EVERY_S + 1)
    worker.generation, worker.partitions = 6, [3]
    await until(lambda: worker.has, RENEW_EVERY_S + 1)
    assert worker.epoch == epoch


async def test_an_epoch_ends_when_redis_does_not_answer(server: Redis, worker: Worker) -> None:
    epoch = worker.epoch
    with away(server):
        await until(lambda: worker.epoch > epoch)
    await until(lambda: not worker.locks.is_redis_lost)


async def test_an_epoch_ends_when_redis_is_another_process_although_nobody_has_missed_it(
    server: Redis, worker: Worker, files: Files
) -> None:
    files.keep()
    for _ in range(2):
        epoch = worker.epoch
        # Between two renewals: the next one finds a Redis that is there, and knows the lock and the epoch.
        await asyncio.to_thread(files.set_back)
        await until(lambda: worker.epoch > epoch, RENEW_EVERY_S + 1)  # noqa: B023


async def redis_has(redis: Client, value: bytes) -> bool:
    """Return whether the lock of partition 3 is as it should be."""
    return bool(await redis.get(LOCK) == value)
