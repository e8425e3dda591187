"""Which partition a wallet lives in, and how its key is written."""

from typing import NamedTuple
from uuid import UUID

from aiokafka.partitioner import murmur2

_REMEMBERED = 2**17
"""Hashing in Python costs 20 µs, so what was seen is remembered; an entry takes about 300 bytes."""


class Home(NamedTuple):
    """Where a wallet's records go: their key, and the partition."""

    key: bytes
    partition: int


class Homes:
    """The homes of wallets, in topics with a number of partitions."""

    def __init__(self, partitions: int) -> None:
        self.partitions = partitions
        # By number: a UUID computes its hash in Python each time it is asked.
        self._known: dict[int, Home] = {}

    def of(self, wallet_id: UUID) -> Home:
        """Return a wallet's home: its id as text, hashed as Kafka's Java clients do it (murmur2)."""
        home = self._known.get(wallet_id.int)
        if home is None:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            key = str(wallet_id).encode()
            home = Home(key, (murmur2(key) & 0x7FFFFFFF) % self.partitions)
            self._known[wallet_id.int] = home
        return home
