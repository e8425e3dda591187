"""The end of the log: the current end offset of each partition of a topic, and the records there.

The worker's own consumer is not suitable: it polls in a thread of its own, and a query waits for the poll to
end.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition
from mode import Service

from mercuria.kafka.fetcher import READ_COMMITTED

BLANK_AT_MOST = 10_000
"""The largest remainder that is read to see whether it holds only the traces of Kafka transactions."""


class _Rest(NamedTuple):
    """The unprocessed remainder of a partition: its range, and whether it has no record; None: unknown."""

    done: int
    end: int
    is_blank: bool | None = None


class LogLostError(Exception):
    """A log ends before the offset up to which it was read."""

    def __init__(self, topic: str, lost: Mapping[int, tuple[int, int]]) -> None:
        partitions = ", ".join(
            f"partition {number} ends at {end:,}, and was read up to {offset:,}"
            for number, (offset, end) in sorted(lost.items())
        )
        super().__init__(
            f"Kafka has lost records of {topic}, or is another one: {partitions}. New records there would pass for"
            " those that were lost, so nothing is decided. What to do: docs/operations.md, 'Kafka lost'."
        )


class LogEnds(Service):
    """Queries Kafka over connections that are opened on demand.

    Args:
        servers: Kafka's bootstrap servers.
    """

    def __init__(self, servers: str) -> None:
        super().__init__()
        self._servers = servers
        self._consumer: AIOKafkaConsumer | None = None
        # Reads like agents: without aborted records, and nothing after the start of an open transaction.
        self._reader: AIOKafkaConsumer | None = None
        self._starting = asyncio.Lock()
        self._reading = asyncio.Lock()
        # By topic and partition, the remainder at the last call of `left`.
        self._rests: dict[tuple[str, int], _Rest] = {}

    async def ends(self, topic: str, partitions: Iterable[int]) -> dict[int, int]:
        """Return the end offset of each partition, which its next record will have."""
        consumer, _ = await self._connected()
        return await _ends(consumer, topic, partitions)

    async def held_up(self, topic: str, partitions: Iterable[int]) -> dict[int, int]:
        """Return the partitions with an open Kafka transaction, and the offset at which it blocks readers."""
        names = list(partitions)
        if not names:
            return {}
        consumer, reader = await self._connected()
        # In this order, records that are written meanwhile do not look like an open transaction.
        ends = await _ends(consumer, topic, names)
        stable = await _ends(reader, topic, names)
        return {each: stable[each] for each in names if stable[each] < ends[each]}

    async def check(self, topic: str, offsets: Mapping[int, int]) -> None:
        """Check that reading of partitions can resume at `offsets`.

        Raises:
            LogLostError: a partition ends before its offset.
        """
        begun = {number: offset for number, offset in offsets.items() if offset}
        ends = await self.ends(topic, begun) if begun else {}
        lost = {number: (offset, ends[number]) for number, offset in begun.items() if ends[number] < offset}
        if lost:
            raise LogLostError(topic, lost)

    async def last_records(self, topic: str, partitions: Iterable[int]) -> dict[int, Any]:
        """Return the last record of each partition that has one."""
        ends = await self.ends(topic, partitions)
        starts = {TopicPartition(topic, each): end - 1 for each, end in ends.items() if end > 0}
        found: dict[int, Any] = {}
        async with self._read(starts) as consumer:
            while len(found) < len(starts):
                for tp, records in (await consumer.getmany(timeout_ms=100)).items():
                    found[tp.partition] = records[-1]
        return found

    async def is_blank(self, topic: str, partition: int, start: int, end: int) -> bool:
        """Return whether `start` to `end` (exclusive) holds only transaction markers and aborted records."""
        tp = TopicPartition(topic, partition)
        _, reader = await self._connected()
        if (await _ends(reader, topic, [partition]))[partition] < end:
            # A transaction is still open, and may be committed.
            return False
        async with self._read({tp: start}) as consumer:
            while await consumer.position(tp) < end:
                found = await consumer.getmany(timeout_ms=100)
                if any(record.offset < end for record in found.get(tp, ())):
                    return False
        return True

    async def left(self, topic: str, partition: int, done: int, end: int) -> int:
        """Return how many records are from `done` to `end` (exclusive); 0 if none is to be processed."""
        if done >= end:
            return 0
        rest = self._rests.get((topic, partition))
        if rest is None or (rest.done, rest.end) != (done, end):
            rest = _Rest(done, end)
        elif rest.is_blank is None and end - done <= BLANK_AT_MOST:
            # The remainder is unchanged since the last call. Only then is reading it worth the cost.
            rest = _Rest(done, end, await self.is_blank(topic, partition, done, end))
        self._rests[topic, partition] = rest
        return 0 if rest.is_blank else end - done

    @asynccontextmanager
    async def _read(self, starts: Mapping[TopicPartition, int]) -> AsyncIterator[AIOKafkaConsumer]:
        """Let the block read partitions from the offsets `starts`. Only one block at a time reads."""
        _, consumer = await self._connected()
        async with self._reading:
            consumer.assign(list(starts))
            try:
                for tp, offset in starts.items():
                    consumer.seek(tp, offset)
                yield consumer
            finally:
                # Otherwise the consumer would go on fetching records that are not read.
                consumer.unsubscribe()

    async def on_stop(self) -> None:
        """Close the connections."""
        for consumer in (self._consumer, self._reader):
            if consumer is not None:
                await consumer.stop()

    async def _connected(self) -> tuple[AIOKafkaConsumer, AIOKafkaConsumer]:
        async with self._starting:
            if self._consumer is None:
                self._consumer = await self._connect("read_uncommitted")
            if self._reader is None:
                self._reader = await self._connect(READ_COMMITTED)
        return self._consumer, self._reader

    async def _connect(self, isolation_level: str) -> AIOKafkaConsumer:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._servers,
            enable_auto_commit=False,
            fetch_max_wait_ms=100,
            isolation_level=isolation_level,
        )
        await consumer.start()
        return consumer


async def _ends(consumer: AIOKafkaConsumer, topic: str, partitions: Iterable[int]) -> dict[int, int]:
    found = await consumer.end_offsets([TopicPartition(topic, each) for each in partitions])
    return {tp.partition: offset for tp, offset in found.items()}
