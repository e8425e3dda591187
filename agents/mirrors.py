"""Mirrors: copies of the analytics counters from PostgreSQL in RocksDB and in Redis.

A copy stores the entry up to which it has counted, and accepts only changes that follow that entry. Changes
are missing if this worker died between the two writes, took the partition over from another worker, or if
Redis lost its data. The copy is then filled again: RocksDB from PostgreSQL, and Redis from RocksDB. A failing
copy blocks neither deciding nor counting.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from mode.utils.logging import get_logger

from mercuria.kafka.batch_table import ZombieWriterError
from mercuria.projections.analytics.cache import AnalyticsCache, first_day
from mercuria.projections.analytics.store import Counters
from mercuria.projections.ledger.snapshot import BooksUnavailable
from mercuria.redis.circuit_breaker import CircuitOpen
from mercuria.redis.client import UNAVAILABLE
from mercuria.tables.counters import CountersTable

LOOK_EVERY_S = 2.0
MAX_WAITING = 200_000
"""If a copy falls behind by more counters than this, they are dropped and the copy is filled again."""

log = get_logger(__name__)


class Mirrors:
    """The queue of counters to copy, and the task that copies them.

    Args:
        table: the table in RocksDB.
        cache: the cache in Redis.
        read: reads all counters of a partition from PostgreSQL; it blocks.
        counted: returns the position of each partition that this worker owns.
    """

    def __init__(
        self,
        table: CountersTable,
        cache: AnalyticsCache,
        read: Callable[[int], Counters],
        counted: Callable[[], Mapping[int, int]],
    ) -> None:
        self._table = table
        self._cache = cache
        self._read = read
        self._counted = counted
        self._waiting: dict[int, Counters] = {}
        self._some = asyncio.Event()
        self._looked_s = 0.0

    def take(self, written: Mapping[int, Counters]) -> None:
        """Queue counters that have just changed."""
        for partition, counters in written.items():
            waiting = self._waiting.get(partition)
            self._waiting[partition] = counters if waiting is None else _together(waiting, counters)
        self._some.set()

    async def run(self) -> None:
        """Copy queued counters, and check regularly whether any are missing, until cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY_S):
                    await self._some.wait()
            self._some.clear()
            waiting, self._waiting = self._waiting, {}
            try:
                await self._copy_all(waiting)
            except (BooksUnavailable, *UNAVAILABLE) as error:
                if not isinstance(error, CircuitOpen):
                    log.warning("What is counted cannot be copied now: %s", type(error).__name__)
            except Exception:
                log.exception("What is counted could not be copied; it is tried again.")

    async def _copy_all(self, waiting: dict[int, Counters]) -> None:
        counted = self._counted()
        if time.monotonic() > self._looked_s + LOOK_EVERY_S:
            self._looked_s = time.monotonic()
            for partition, position in counted.items():
                # An empty change only shows whether the changes before it have arrived.
                waiting.setdefault(partition, Counters(position, position, [], [], []))
        for partition, counters in waiting.items():
            if partition in counted and self._table.store.is_open(partition):
                await self._copy(partition, counters)

    async def _copy(self, partition: int, counters: Counters) -> None:
        try:
            if not await self._table.put(partition, counters):
                await self._table.put(partition, await asyncio.to_thread(self._read, partition))
        except ZombieWriterError:
            # The previous owner of the partition still wrote. The stored rows are newer or the same; the next check
            # finds out.
            self._table.forget(partition)
        if not await self._cache.put(partition, counters):
            log.debug("Redis lacks counters of partition %d; it is filled again.", partition)
            await self._cache.put(
                partition, await asyncio.to_thread(self._table.since, partition, first_day())
            )


def _together(first: Counters, second: Counters) -> Counters:
    """Merge counters with later ones."""
    size = len(first.days) + len(first.active) + len(first.users)
    if size > MAX_WAITING or first.after != second.before:
        # The copies notice that the changes before these are missing, and are filled again.
        return second
    return Counters(
        first.before,
        second.after,
        first.days + second.days,
        first.active + second.active,
        first.users + second.users,
    )
