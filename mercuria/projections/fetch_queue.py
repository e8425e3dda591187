"""The queue of a projection: what was fetched and is not in PostgreSQL yet."""

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from contextlib import suppress

from mercuria.kafka.transport import Fetched

MAX_WAITING = 8
"""How many fetches of a partition may be queued; further ones wait in Kafka."""


class FetchQueue:
    """Fetches by partition, each partition's in the order of its offsets.

    Args:
        enough: how many records are worth a transaction of their own.
    """

    def __init__(self, enough: int) -> None:
        self._enough = enough
        self._waiting: defaultdict[int, deque[Fetched]] = defaultdict(deque)
        self._has_enough = asyncio.Event()
        self._room = asyncio.Condition()

    @property
    def records(self) -> int:
        """The number of queued records."""
        return sum(len(fetch) for waiting in self._waiting.values() for fetch in waiting)

    @property
    def partitions(self) -> set[int]:
        """The partitions with queued records."""
        return {number for number, waiting in self._waiting.items() if waiting}

    def holds(self, partition: int) -> bool:
        """Return whether records of a partition are queued."""
        return bool(self._waiting[partition])

    async def put(self, partition: int, fetch: Fetched) -> None:
        """Add the next records of a partition once there is room for them."""
        waiting = self._waiting[partition]
        async with self._room:
            await self._room.wait_for(lambda: len(waiting) < MAX_WAITING)
        waiting.append(fetch)
        self._look_for_enough()

    def in_turn(self, partitions: Iterable[int]) -> Iterator[tuple[int, Fetched]]:
        """Yield the first fetch of each of the partitions, then the second of each, and so on."""
        wanted = set(partitions)
        known = {number: tuple(waiting) for number, waiting in self._waiting.items() if number in wanted}
        for index in range(max(map(len, known.values()), default=0)):
            yield from ((number, each[index]) for number, each in known.items() if index < len(each))

    async def remove(self, done: Iterable[tuple[int, Fetched]]) -> None:
        """Remove fetches that are written, the first ones of their partitions."""
        for partition, fetch in done:
            waiting = self._waiting[partition]
            # The queue holds other fetches if the partition was revoked and assigned again in the meantime.
            if waiting and waiting[0] is fetch:
                waiting.popleft()
            # The other partitions come first in the next round.
            self._waiting[partition] = self._waiting.pop(partition)
        async with self._room:
            self._room.notify_all()

    def clear(self, partition: int) -> None:
        """Drop the records of a partition."""
        self._waiting[partition].clear()

    async def wait_enough(self, until_s: float) -> None:
        """Wait until `until_s`, until enough records are queued, or until the queue of a partition is full."""
        self._has_enough.clear()
        self._look_for_enough()
        with suppress(TimeoutError):
            # `wait_for` of Python 3.11 loses a cancellation that arrives together with the result.
            async with asyncio.timeout(until_s - time.monotonic()):
                await self._has_enough.wait()

    def _look_for_enough(self) -> None:
        is_full = any(len(waiting) >= MAX_WAITING for waiting in self._waiting.values())
        if is_full or self.records >= self._enough:
            self._has_enough.set()
