"""Mirrors: what is counted is copied from PostgreSQL to RocksDB and to Redis.

A copy knows up to which entry it has counted, and takes changes that follow that. Where something is missing, since
this worker died between the two, got the partition from another one, or Redis has forgotten it, it is filled again:
RocksDB from PostgreSQL, and Redis from RocksDB. A copy that fails stops nobody who decides or counts.
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
"""More counters are not kept for copies that do not keep up: they are filled again."""

log = get_logger(__name__)


class Mirrors:
    """What waits to be copied, and the one who copies it.

    Args:
        table: in RocksDB.
        cache: in Redis.
        read: reads all counters of a partition from PostgreSQL, and waits.
        counted: tells of the partitions that are this worker's now, up to where they are counted.
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
        """Take counters that have just changed."""
        for partition, counters in written.items():
            waiting = self._waiting.get(partition)
            self._waiting[partition] = counters if waiting is None else _together(waiting, counters)
        self._some.set()

    async def run(self) -> None:
        """Copy what comes, and look now and then whether anything is missing, until cancelled."""
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
                # No change at all: it only shows whether those before it are there.
                waiting.setdefault(partition, Counters(position, position, [], [], []))
        for partition, counters in waiting.items():
            if partition in counted and self._table.store.is_open(partition):
                await self._copy(partition, counters)

    async def _copy(self, partition: int, counters: Counters) -> None:
        try:
            if not await self._table.put(partition, counters):
                await self._table.put(partition, await asyncio.to_thread(self._read, partition))
        except ZombieWriterError:
            # Whoever had the partition before still wrote. What is there is newer or the same; the next look tells.
            self._table.forget(partition)
        if not await self._cache.put(partition, counters):
            log.debug("Redis lacks counters of partition %d; it is filled again.", partition)
            await self._cache.put(
                partition, await asyncio.to_thread(self._table.since, partition, first_day())
            )


def _together(first: Counters, second: Counters) -> Counters:
    """Put counters together with later ones."""
    size = len(first.days) + len(first.active) + len(first.users)
    if size > MAX_WAITING or first.after != second.before:
        # The copies notice that something is missing before these, and are filled again.
        return second
    return Counters(
        first.before,
        second.after,
        first.days + second.days,
        first.active + second.active,
        first.users + second.users,
    )
