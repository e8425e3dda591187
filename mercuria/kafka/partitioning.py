"""The partitioner: the partition of a wallet, and the key of its records."""

from typing import NamedTuple
from uuid import UUID

from aiokafka.partitioner import murmur2

_REMEMBERED = 2**17
"""The size of the cache. A hash in Python costs 20 µs; an entry takes about 300 bytes."""


class Home(NamedTuple):
    """The key and the partition of a wallet's records."""

    key: bytes
    partition: int


class Homes:
    """The partitioner of wallets, for topics with a given number of partitions."""

    def __init__(self, partitions: int) -> None:
        self.partitions = partitions
        # The cache's keys are integers: a UUID computes its hash in Python at each look-up.
        self._known: dict[int, Home] = {}

    def of(self, wallet_id: UUID) -> Home:
        """Return a wallet's key (its id as text) and partition (by murmur2, like Kafka's Java clients)."""
        home = self._known.get(wallet_id.int)
        if home is None:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            key = str(wallet_id).encode()
            home = Home(key, (murmur2(key) & 0x7FFFFFFF) % self.partitions)
            self._known[wallet_id.int] = home
        return home
