"""The announcer: publishes decisions to waiting requests and to the cache, after they are stored in Kafka.

One call to Redis carries the decisions of all partitions since the previous call: first the balances and
transactions, then the replies, so that a client that has its reply finds the new state in the cache. Requests
that wait in this process come last, and get their replies whether Redis answers or not.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from mode import Service

from mercuria.domain.transaction import Transaction
from mercuria.domain.wallet import Wallet
from mercuria.redis.cache import Balances, Cache
from mercuria.redis.circuit_breaker import CircuitBreaker, CircuitOpen
from mercuria.redis.client import UNAVAILABLE
from mercuria.redis.leases import PartitionLocks
from mercuria.redis.replies import CHANNEL, Replies, Reply, encode_replies

MAX_CACHED_WALLETS = 200
"""A batch with more wallets is a bulk load: the cache of its partition is dropped instead, at no cost."""

ToNode = tuple[str, Reply]


class Announcement(NamedTuple):
    """The decisions of one batch of a partition."""

    partition: int
    wallets: Sequence[Wallet]
    replies: Sequence[ToNode]


class Announcer(Service):
    """Accepts announcements, and publishes them in the background."""

    def __init__(self, cache: Cache, locks: PartitionLocks, replies: Replies, **options: Any) -> None:
        super().__init__(**options)
        self._cache = cache
        self._locks = locks
        self._replies = replies
        self._waiting: list[Announcement] = []
        self._some = asyncio.Event()
        self._breaker = CircuitBreaker(UNAVAILABLE)

    def announce(self, announcement: Announcement) -> None:
        """Queue an announcement, which is published soon."""
        self._waiting.append(announcement)
        self._some.set()

    @Service.task
    async def _announce_always(self) -> None:
        while not self.should_stop:
            await self._some.wait()
            self._some.clear()
            taken, self._waiting = self._waiting, []
            try:
                await self._tell_redis(taken)
            finally:
                self._replies.resolve(
                    [reply for each in taken for node, reply in each.replies if node == self._replies.node]
                )

    async def _tell_redis(self, taken: list[Announcement]) -> None:
        by_node: defaultdict[str, list[Reply]] = defaultdict(list)
        for each in taken:
            for node, reply in each.replies:
                if node != self._replies.node:
                    by_node[node].append(reply)
        messages = [(CHANNEL.format(node), encode_replies(replies)) for node, replies in by_node.items()]
        try:
            with self._breaker.unless_away():
                await self._cache.remember(self._balances(taken), _transactions(taken), messages)
        except UNAVAILABLE as error:
            if not isinstance(error, CircuitOpen):
                self.log.warning("What was decided cannot be cached: %s", type(error).__name__)
            self._forget(taken)

    def _balances(self, taken: Iterable[Announcement]) -> list[Balances]:
        newest: defaultdict[int, dict[int, Wallet]] = defaultdict(dict)
        for each in taken:
            newest[each.partition].update((wallet.id.int, wallet) for wallet in each.wallets)
        return [
            self._balances_of(partition, list(wallets.values()))
            for partition, wallets in newest.items()
            # Without an epoch, another worker owns the partition. Redis ignores an old epoch.
            if self._locks.epoch(partition)
        ]

    def _balances_of(self, partition: int, wallets: list[Wallet]) -> Balances:
        if len(wallets) > MAX_CACHED_WALLETS:
            return Balances(partition, self._locks.next_epoch(partition), [])
        return Balances(partition, self._locks.epoch(partition), wallets)

    def _forget(self, taken: Iterable[Announcement]) -> None:
        """Invalidate the cache of these partitions, as soon as Redis can be reached."""
        for partition in {each.partition for each in taken}:
            self._locks.next_epoch(partition)


def _transactions(taken: Iterable[Announcement]) -> list[Transaction]:
    return [
        reply.transaction
        for each in taken
        for _, reply in each.replies
        if reply.transaction is not None and not reply.is_replayed
    ]
