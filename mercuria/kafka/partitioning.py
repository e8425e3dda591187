"""The partitioner: the partition of a wallet, and the key of its records."""

from typing import NamedTuple
from uuid import UUID

from aiokafka.partitioner import murmur2

_REMEMBERED = 2**17
"""The size of the cache. A hash in Python costs 20 µs; an entry takes about 300 bytes."""


class Route(NamedTuple):
    """The key and the partition of a wallet's records."""

    key: bytes
    partition: int


class Partitioner:
    """The partitioner of wallets, for topics with a given number of partitions."""

    def __init__(self, partitions: int) -> None:
        self.partitions = partitions
        # The cache's keys are integers: a UUID computes its hash in Python at each look-up.
        self._known: dict[int, Route] = {}

    def of(self, wallet_id: UUID) -> Route:
        """Return a wallet's key (its id as text) and partition (by murmur2, like Kafka's Java clients)."""
        route = self._known.get(wallet_id.int)
        if route is None:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            key = str(wallet_id).encode()
            route = Route(key, (murmur2(key) & 0x7FFFFFFF) % self.partitions)
            self._known[wallet_id.int] = route
        return route
