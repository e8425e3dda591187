"""Partition leases in Redis: a worker decides for a partition only while it provably holds the lease.

The fencing token is the generation of the consumer group: a newer generation takes a lease at once, an older
one never. Two deciders would do no harm, since they would write the same bytes. The leases stop a worker that
Kafka has removed from the group, and show all workers who owns which partition. An outage of Redis shorter
than the lifetime of a lease has no effect. During a longer one, deciding pauses, and resumes by itself.

Each lease has an epoch, the number under which the balances of the partition are cached (`redis.announcer`).
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from mode import Service
from redis.asyncio import Redis

from mercuria.redis.cache import EPOCH_KEY, EPOCH_LIFE_S, LOCK_KEY, LOCK_LIFE_S, PROCESS
from mercuria.redis.client import UNAVAILABLE

LIFE_S = LOCK_LIFE_S
RENEW_EVERY_S = 2.0
MARGIN_S = 0.5
"""The worker considers a lease expired this long before Redis does."""
RETRY_S = 0.2

_TAKE = (
    PROCESS
    + """
local held = redis.call('GET', KEYS[1])
if held then
    local generation, owner = held:match('^(%d+):(.*)$')
    generation = tonumber(generation) or -1
    if generation > tonumber(ARGV[1]) or generation == tonumber(ARGV[1]) and owner ~= ARGV[2] then return 0 end
end
redis.call('SET', KEYS[1], ARGV[1] .. ':' .. ARGV[2], 'PX', ARGV[3])
local key = KEYS[2] .. ':' .. process
local epoch, current = tonumber(ARGV[4]), tonumber(redis.call('GET', key) or '0')
if current == 0 or epoch < current then
    local time = redis.call('TIME')
    epoch = math.max(epoch + 1, current + 1, time[1] * 1000 + math.floor(time[2] / 1000))
end
redis.call('SET', key, string.format('%.0f', epoch), 'EX', ARGV[5])
return epoch
"""
)
"""Take or renew a lease, unless another owner has it in this or a newer generation. Returns the epoch, or 0.

0 means that the lease was not granted. A new epoch is the time in ms, so it is greater than all epochs that
any Redis has ever had, even one that returns with old data. Keys: the lease, the epoch. Arguments: the
generation, the owner, the lifetime in ms, the owner's epoch or 0 for a new one, and the epoch's lifetime in
s.
"""

_RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] .. ':' .. ARGV[2] then redis.call('DEL', KEYS[1]) end
"""


class PartitionLocks(Service):
    """The leases of this worker.

    Args:
        redis: the client.
        owner: the unique id of this worker, which is stored in the lease.
        generation: returns the generation of the consumer group.
        partitions: returns the partitions that this worker owns.
    """

    def __init__(
        self,
        redis: Redis,
        owner: str,
        generation: Callable[[], int],
        partitions: Callable[[], Iterable[int]],
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._redis = redis
        self._owner = owner
        self._generation = generation
        self._partitions = partitions
        self._take = redis.register_script(_TAKE)
        self._release = redis.register_script(_RELEASE)
        self._held_until_s: dict[int, float] = {}
        self._epochs: dict[int, int] = {}
        self._answered_s = time.monotonic()
        self._is_missed = False
        self._wanted = asyncio.Event()
        self._renewed = asyncio.Condition()

    def is_held(self, partition: int) -> bool:
        """Return whether this worker provably holds the lease of a partition now."""
        return time.monotonic() < self._held_until_s.get(partition, 0.0)

    @property
    def is_redis_lost(self) -> bool:
        """Whether Redis has been unavailable for longer than a lease lives, so that no worker decides."""
        # A suspended worker has not asked Redis for a while, which does not mean that Redis is unavailable.
        return self._is_missed and time.monotonic() - self._answered_s > LIFE_S

    def epoch(self, partition: int) -> int:
        """Return the epoch of a partition, or 0 if it has none."""
        return self._epochs.get(partition, 0)

    def next_epoch(self, partition: int) -> int:
        """Begin a new epoch, which invalidates the partition's cache. Returns 0 if it has no epoch at all."""
        if self._epochs.get(partition):
            self._epochs[partition] += 1
            self._wanted.set()
        return self.epoch(partition)

    async def prove(self, partition: int) -> None:
        """Wait, for as long as it takes, until this worker provably holds the lease of `partition`."""
        while not self.is_held(partition):
            self._wanted.set()
            async with self._renewed:
                await self._renewed.wait()

    @Service.task
    async def _renew_always(self) -> None:
        while not self.should_stop:
            self._wanted.clear()
            failed = not await self._renew()
            async with self._renewed:
                self._renewed.notify_all()
            if failed or any(not self.is_held(each) for each in self._partitions()):
                await self.sleep(RETRY_S)
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(RENEW_EVERY_S):
                    await self._wanted.wait()

    async def _renew(self) -> bool:
        """Take or renew all leases; return whether Redis answered."""
        # In this order: Redis refuses an outdated generation, but outdated partitions with a newer generation would
        # be taken away from their owner.
        generation = self._generation()
        partitions = list(self._partitions())
        for lost in self._held_until_s.keys() - set(partitions):
            # The epoch continues if no other worker takes the partition before it returns.
            self._held_until_s.pop(lost)
        began_s = time.monotonic()
        try:
            async with self._redis.pipeline(transaction=False) as pipeline:
                pipeline.ping()
                for each in partitions:
                    await self._take(
                        keys=keys_of(each), args=self._arguments(generation, each), client=pipeline
                    )
                _, *epochs = await pipeline.execute()
        except UNAVAILABLE as error:
            self._miss(error)
            return False
        self._answered_s, self._is_missed = time.monotonic(), False
        for partition, epoch in zip(partitions, epochs, strict=True):
            self._epochs[partition] = max(epoch, self._epochs.get(partition, 0)) if epoch else 0
            self._held_until_s[partition] = began_s + LIFE_S - MARGIN_S if epoch else 0.0
        return True

    def _miss(self, error: Exception) -> None:
        """Continue without an answer. Redis may have missed or lost writes, so all epochs are replaced."""
        if not self.is_redis_lost:
            self.log.warning("Redis does not answer: %s", type(error).__name__)
        self._is_missed = True
        for partition in self._epochs:
            self.next_epoch(partition)

    def _arguments(self, generation: int, partition: int) -> list[Any]:
        return [
            generation,
            self._owner,
            int(LIFE_S * 1000),
            self._epochs.get(partition, 0),
            EPOCH_LIFE_S,
        ]

    async def on_stop(self) -> None:
        """Release the leases, so that the next owner need not wait for their expiry."""
        self._wanted.set()  # The task must not wait for the next renewal.
        held = [each for each in self._held_until_s if self.is_held(each)]
        self._held_until_s.clear()
        with suppress(*UNAVAILABLE):
            for partition in held:
                await self._release(keys=keys_of(partition)[:1], args=[self._generation(), self._owner])


def keys_of(partition: int) -> list[str]:
    """Return the keys of a partition in Redis: its lease, and its epoch."""
    return [LOCK_KEY.format(partition), EPOCH_KEY.format(partition)]
