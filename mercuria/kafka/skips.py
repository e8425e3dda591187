"""Skips: records that workers pass over on an operator's request, because they would crash every worker.

Skips have a topic of their own; the skip of a record is in the partition of the same number. A worker reads
that topic to its end before it processes newly assigned partitions, and follows it while it runs. So all
workers skip the same records, also after a crash, after a rebuild, and from an empty directory.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError
from mode import Service
from mode.utils.logging import get_logger

from mercuria.domain.parsing import Unreadable
from mercuria.kafka.client import event_reader, read_log
from mercuria.kafka.producer import Record
from mercuria.topics import PROCESSED, SKIPS

MAX_REASON_LETTERS = 1000
FOLLOW_EVERY_S = 0.25
RETRY_S = 0.25

log = get_logger(__name__)


class Skip(msgspec.Struct, frozen=True):
    """The record to skip, the reason, the operator, and the time (RFC 3339)."""

    topic: str
    partition: int
    offset: int
    reason: str
    by: str
    at: str

    @property
    def headers(self) -> list[tuple[str, bytes]]:
        """The headers of the dead letter for the skipped record."""
        return [
            ("reason", self.reason.encode()),
            ("skipped-by", self.by.encode()),
            ("skipped-at", self.at.encode()),
        ]

    @property
    def facts(self) -> dict[str, object]:
        """The fields of a log line about the skip."""
        return {"topic": self.topic, "partition": self.partition, "offset": self.offset} | {
            "reason": self.reason,
            "skipped_by": self.by,
            "skipped_at": self.at,
        }


class Skipped(Unreadable, frozen=True, gc=False, kw_only=True):
    """A command that is skipped."""

    skip: Skip


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Skip).decode
NONE: Mapping[int, Skip] = {}


def record_of(skip: Skip) -> Record:
    """Return the record that publishes a skip, for the partition `skip.partition`."""
    return Record(f"{skip.topic}-{skip.partition}-{skip.offset}".encode(), _encode(skip), None)


def read_skip(record: Any) -> Skip | None:
    """Return the skip in a record of the topic; None if it holds none."""
    try:
        skip = _decode(record.value or b"")
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return skip if skip.topic in PROCESSED and skip.partition == record.partition else None


async def all_skips(servers: str) -> AsyncIterator[Skip]:
    """Yield the skips of an installation. Of several skips of one record, only the first counts."""
    seen = set()
    async for record in read_log(servers, SKIPS):
        skip = read_skip(record)
        if skip is not None and (place := (skip.topic, skip.partition, skip.offset)) not in seen:
            seen.add(place)
            yield skip


class Skips(Service):
    """The skips that this worker knows.

    Args:
        servers: Kafka's bootstrap servers.
    """

    def __init__(self, servers: str) -> None:
        super().__init__()
        self._servers = servers
        self._known: defaultdict[tuple[str, int], dict[int, Skip]] = defaultdict(dict)
        self._reader: AIOKafkaConsumer | None = None
        self._connection: Any = None
        self._reading = asyncio.Lock()
        self._generation: int | None = None

    def of(self, topic: str, partition: int) -> Mapping[int, Skip]:
        """Return the skips of a partition by offset."""
        return self._known.get((topic, partition), NONE)

    async def up_to_date(self, generation: int) -> None:
        """Wait until this worker knows all skips from before the last rebalance; wait for Kafka if necessary.

        A record that another worker skipped before it lost a partition must be skipped here as well.

        Args:
            generation: the count of rebalances.
        """
        while generation != self._generation:
            try:
                async with self._reading:
                    # All partitions ask at the same time, and one read serves them all.
                    if generation != self._generation:
                        await self._read_to_end()
                        self._generation = generation
            except (KafkaError, OSError) as error:
                log.warning("Kafka does not say which records are to be skipped: %r", error)
                await asyncio.sleep(RETRY_S)

    async def _read_to_end(self) -> None:
        reader = await self._connected()
        ends = await reader.end_offsets(reader.assignment())
        while any([await reader.position(tp) < end for tp, end in ends.items()]):
            await self._take(reader)

    async def _take(self, reader: AIOKafkaConsumer) -> None:
        for records in (await reader.getmany(timeout_ms=50)).values():
            for record in records:
                skip = read_skip(record)
                if skip is None:
                    log.warning(
                        "Offset %d of partition %d of %s is no skip.", record.offset, record.partition, SKIPS
                    )
                else:
                    self._known[skip.topic, skip.partition].setdefault(skip.offset, skip)

    async def _connected(self) -> AIOKafkaConsumer:
        if self._reader is None:
            self._connection = event_reader(self._servers, SKIPS, from_beginning=True)
            self._reader = await self._connection.__aenter__()
        return self._reader

    @Service.task
    async def _follow(self) -> None:
        while not self.should_stop:
            if self._reader is not None:
                try:
                    async with self._reading:
                        await self._take(self._reader)
                except KafkaError as error:
                    log.info("Kafka does not say whether more records are to be skipped: %r", error)
            await self.sleep(FOLLOW_EVERY_S)

    async def on_stop(self) -> None:
        """Close the connection."""
        if self._connection is not None and self._reader is not None:
            await self._connection.__aexit__(None, None, None)
