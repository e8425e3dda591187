"""Which partition a wallet lives in, and how its key is written."""

from functools import lru_cache
from uuid import UUID

from aiokafka.partitioner import murmur2

# Hashing in Python costs 20 µs, so what was seen is remembered; an entry takes about 300 bytes.
_REMEMBERED = 2**17


@lru_cache(_REMEMBERED)
def key_of(wallet_id: UUID) -> bytes:
    """Return the key of a wallet's records: its id as text."""
    return str(wallet_id).encode()


@lru_cache(_REMEMBERED)
def partition_of(wallet_id: UUID, partitions: int) -> int:
    """Return the partition of a wallet: as Kafka's Java clients hash the key (KIP-480's murmur2)."""
    hashed: int = murmur2(key_of(wallet_id))
    return (hashed & 0x7FFFFFFF) % partitions
