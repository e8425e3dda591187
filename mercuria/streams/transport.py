"""A Faust transport driver that hands out batches: `mercuria://host:port`, on top of Faust's aiokafka driver.

Assignment, acknowledgement, commits, tables and recovery are Faust's. Different is:

- A topic with a `BatchSchema` is delivered in lists of records, at most `MAX_BATCH_RECORDS` each, as aiokafka's parser
  made them: they have `offset`, `timestamp` (ms), `key`, `value` and `headers`.
- Where a table knows its position in such a topic, reading resumes there, whatever was committed: Faust acknowledges
  a batch also when its agent is cancelled in the middle of it, and fills gaps between the offsets that it has seen.
- The producer waits for all replicas, is idempotent, and appends whole batches.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, ClassVar, cast

from aiokafka import AIOKafkaProducer
from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.producer.message_accumulator import BatchBuilder
from faust.transport.drivers import aiokafka as driver
from faust.transport.utils import DefaultSchedulingStrategy, TopicBuffer, TopicIndexMap
from faust.types import TP, ConsumerMessage
from msgspec import Struct

from mercuria.streams.schema import BatchSchema
from mercuria.topics import max_batch_bytes

BUFFERED_POLL_S = 0.02
"""How long to wait for records while a partition is not read, because its queue is full."""

MAX_CONNECTIONS = 16
"""How many connections a worker produces over, at the most."""

MAX_BATCH_RECORDS = 1000
"""A longer fetch is cut, so that one batch keeps the event loop for some milliseconds at most."""


class Record(Struct, frozen=True, gc=False):
    """A record to append. `time_ms` is its timestamp; `headers` are pairs of name and bytes."""

    key: bytes | None
    value: bytes | None
    time_ms: int | None
    headers: list[tuple[str, bytes]] = []


class BatchScheduler(DefaultSchedulingStrategy):
    """Deals out what one poll returned: round robin over topics and partitions, batches where a topic wants them."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._batched: dict[str, bool] = {}

    def wants_batches(self, topic: str) -> bool:
        """Tell whether a topic is delivered in batches."""
        if topic not in self._batched:
            channels = [channel for channel in self._app.topics if topic in channel.topics]
            if not channels:
                return False
            self._batched[topic] = any(isinstance(channel.schema, BatchSchema) for channel in channels)
            if self._batched[topic]:
                _ParsedRecords.batched_topics.add(topic)
        return self._batched[topic]

    def map_from_records(  # type: ignore[override]  # Faust's is a class method, but calls it on the instance
        self, records: Mapping[TP, list[Any]]
    ) -> TopicIndexMap:
        """Return the buffers to deal from, by topic."""
        index: dict[str, TopicBuffer] = {}
        for tp, messages in records.items():
            buffer = index.setdefault(tp.topic, TopicBuffer())
            buffer.add(tp, list(_cut(cast(Fetched, messages))) if self.wants_batches(tp.topic) else messages)
        return index


class Fetched(list[Any]):
    """Records of one partition, one after the other: from the offset `start` up to the last, there are no others."""

    def __init__(self, records: Iterable[Any], start: int) -> None:
        super().__init__(records)
        self.start = start


def _cut(records: Fetched) -> Iterator[Fetched]:
    start = records.start
    for index in range(0, len(records), MAX_BATCH_RECORDS):
        piece = Fetched(records[index : index + MAX_BATCH_RECORDS], start)
        start = piece[-1].offset + 1
        yield piece


class _ParsedRecords(fetcher.PartitionRecords):  # type: ignore[misc]  # aiokafka is untyped
    """What a fetch returned for a partition; for a batched topic, it can be taken all at once and as it was parsed.

    aiokafka hands out one `ConsumerRecord` after the other. That costs 3 µs a record: more than parsing it.
    """

    batched_topics: ClassVar[set[str]] = set()
    next_fetch_offset: int

    @property
    def is_batched(self) -> bool:
        return self._tp.topic in self.batched_topics

    def take_all(self) -> list[Any]:
        assert self._isolation_level == fetcher.READ_UNCOMMITTED, "aborted transactions are not left out here"
        taken: list[Any] = []
        while self._records.has_next():
            batch = self._records.next_batch()
            if self._check_crcs and not batch.validate_crc():
                raise CorruptRecordException(f"Invalid CRC - {self._tp}")
            if not batch.is_control_batch:
                records = list(batch)
                if batch.base_offset < self.next_fetch_offset:
                    records = [record for record in records if record.offset >= self.next_fetch_offset]
                taken += records
            self.next_fetch_offset = batch.next_offset
        return taken


class _FetchResult(fetcher.FetchResult):  # type: ignore[misc]  # aiokafka is untyped
    """What a fetch returned for a partition, which knows where it began.

    Faust can lose a batch when a rebalance comes between two polls. An agent that compares where a batch begins with
    where the one before it ended notices that. Offsets alone do not tell: transactions leave gaps in them.
    """

    # Where nothing but the marks of transactions was found: from, and up to where.
    _empty: ClassVar[dict[TP, tuple[int, int]]] = {}

    def getall(self, max_records: int | None = None) -> list[Any]:
        parsed: _ParsedRecords | None = self._partition_records
        tp = self._topic_partition
        if parsed is None:  # It has been taken, or was given up because of a seek.
            return []
        start = parsed.next_fetch_offset
        since, until = self._empty.pop(tp, (start, start))
        records = Fetched(self._take(parsed, max_records), since if until == start else start)
        if not records:
            self._empty[tp] = (records.start, parsed.next_fetch_offset)
        return records

    def _take(self, parsed: _ParsedRecords, max_records: int | None) -> list[Any]:
        if not parsed.is_batched or max_records is not None:
            return cast(list[Any], super().getall(max_records))
        if not self.check_assignment(self._topic_partition):
            return []
        taken = parsed.take_all()
        self._update_position()
        self._partition_records = None
        return taken


# aiokafka's fetcher has no other way to be given its own kind of records.
fetcher.PartitionRecords = _ParsedRecords
fetcher.FetchResult = _FetchResult


class _ReadOffsets(defaultdict[TP, int | None]):
    """Up to where Faust has read each partition, to drop what it reads again.

    For batches, it must not: after a seek, it may set the offset of a batch that it gave up because of the seek, and
    drop those before it. Who takes batches knows itself up to where it has processed them.
    """

    def __init__(self, wants_batches: Callable[[str], bool]) -> None:
        super().__init__(lambda: None)
        self._wants_batches = wants_batches

    def __getitem__(self, tp: TP) -> int | None:
        return None if self._wants_batches(tp.topic) else super().__getitem__(tp)


class Consumer(driver.Consumer):
    """Faust's consumer, with batches."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.scheduler: BatchScheduler = BatchScheduler(self.app)
        self._read_offset = _ReadOffsets(self.scheduler.wants_batches)
        self._dropped = asyncio.Event()

    def on_buffer_drop(self, tp: TP) -> None:
        """Read a partition again whose queue has room, at once."""
        super().on_buffer_drop(tp)
        self._dropped.set()

    async def _wait_next_records(self, timeout: float) -> tuple[Any, Any]:  # noqa: ASYNC109  Faust's
        if self._buffered_partitions:
            # Faust sleeps for a second when the queues of all partitions are full, and does not look at one that has
            # room again while it waits for records of another.
            timeout = BUFFERED_POLL_S
            if not self._get_active_partitions():
                self._dropped.clear()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._dropped.wait(), timeout)
        return await super()._wait_next_records(timeout)

    def _to_message(self, tp: TP, record: Any) -> ConsumerMessage:
        if not isinstance(record, list):
            return super()._to_message(tp, record)
        last = record[-1]
        return ConsumerMessage(
            tp.topic,
            tp.partition,
            last.offset,
            last.timestamp / 1000,
            last.timestamp_type,
            None,
            None,
            record,  # type: ignore[arg-type]  # what a BatchSchema expects
            None,
            0,
            0,
            tp,
            generation_id=self.app.consumer_generation_id,
        )

    async def perform_seek(self) -> None:
        """Go to where reading has to go on; the caller lets the flow go on afterwards."""
        # What is delivered meanwhile is thrown away: Faust empties the queues after the seek, before the flow goes on.
        self.stop_flow()
        await super().perform_seek()

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Go to where reading has to go on, and return the offsets."""
        offsets = dict(await super().seek_to_committed())
        app: Any = self.app
        known = {tp: resume for tp in offsets if (resume := app.resume_at(tp)) is not None}
        if known:
            await self.seek_wait(known)
        return offsets | known

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        # A batch stands for all offsets up to its last one; there are no gaps to remember.
        if not self.scheduler.wants_batches(tp.topic):
            await super()._add_gap(tp, offset_from, offset_to)

    def _new_offset(self, tp: TP) -> int | None:
        if not self.scheduler.wants_batches(tp.topic):
            return super()._new_offset(tp)
        acked = self._acked[tp]
        if not acked:
            return None
        # Batches of one partition are processed one at a time, so all before the last one are done, too.
        last = max(acked)
        acked.clear()
        self._acked_index[tp].clear()
        return last + 1


class Producer(driver.Producer):
    """Faust's producer, idempotent, and with a way to append whole batches."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._connections: dict[int, _Connection] = {}
        self._lanes: dict[tuple[int, str, int], _Lane] = {}

    def _settings_extra(self) -> Mapping[str, Any]:
        return {"acks": "all", "enable_idempotence": True}

    def enqueue(
        self, source: int, topic: str, partition: int, records: Sequence[Record]
    ) -> asyncio.Future[int]:
        """Hand over records that come from the partition `source`.

        They are appended in order, and in as few record batches as they fit into.

        Returns:
            The offset of the first record, when Kafka has acknowledged all of them; -1 when there is none.
        """
        number = source % MAX_CONNECTIONS
        lane = self._lanes.get((number, topic, partition))
        if lane is None:
            connection = self._connections.get(number)
            if connection is None:
                connection = self._connections[number] = _Connection(self._new_producer)
            lane = self._lanes[number, topic, partition] = _Lane(connection, topic, partition)
        return lane.enqueue(records)

    async def flush(self) -> None:
        """Wait until all that was handed over is acknowledged. Faust does so before it reads a changelog to its end."""
        await super().flush()
        await asyncio.gather(*(lane.flush() for lane in self._lanes.values()))

    async def on_stop(self) -> None:
        """Give up what is still waiting, and stop."""
        for lane in self._lanes.values():
            lane.cancel()
        await super().on_stop()
        for connection in self._connections.values():
            await connection.stop()


class _Connection:
    """A producer of aiokafka's that starts when it is first wanted.

    It has one request under way at a time. With one for all, the partitions of a worker would wait for each other:
    all decide, then all are sent, and whoever is ready first waits for the last.
    """

    def __init__(self, new_producer: Callable[[], AIOKafkaProducer]) -> None:
        self._new_producer = new_producer
        self._starting: asyncio.Task[AIOKafkaProducer] | None = None

    async def producer(self) -> AIOKafkaProducer:
        if self._starting is None:
            self._starting = asyncio.create_task(self._start())
        return await asyncio.shield(self._starting)

    async def stop(self) -> None:
        if self._starting is not None:
            await (await self._starting).stop()

    async def _start(self) -> AIOKafkaProducer:
        producer = self._new_producer()
        await producer.start()
        return producer


class _Lane:
    """What is on its way to one partition, over one connection.

    Several senders may wait for the same partition. aiokafka takes one batch of a partition at a time and lets all
    others poll for their turn, so here they join the next batch instead.
    """

    def __init__(self, connection: _Connection, topic: str, partition: int) -> None:
        self._connection = connection
        self._topic = topic
        self._partition = partition
        self._max_batch_bytes = max_batch_bytes(topic)
        self._waiting: list[tuple[Sequence[Record], asyncio.Future[int]]] = []
        self._task: asyncio.Task[None] | None = None

    def enqueue(self, records: Sequence[Record]) -> asyncio.Future[int]:
        loop = asyncio.get_running_loop()
        appended: asyncio.Future[int] = loop.create_future()
        if not records:
            appended.set_result(-1)
            return appended
        self._waiting.append((records, appended))
        if self._task is None or self._task.done():
            self._task = loop.create_task(self._run())
        return appended

    async def flush(self) -> None:
        if self._task is not None:
            await asyncio.wait([self._task])

    def cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        while self._waiting:
            taken, self._waiting = self._waiting, []
            try:
                first_offsets = await self._append([record for records, _ in taken for record in records])
            except Exception as error:
                for _, appended in taken:
                    if not appended.done():
                        appended.set_exception(error)
                continue
            start = 0
            for records, appended in taken:
                if not appended.done():
                    appended.set_result(_offset_at(first_offsets, start))
                start += len(records)

    async def _append(self, records: list[Record]) -> list[tuple[int, int]]:
        """Append records; return for each record batch the index of its first record, and that one's offset."""
        producer = await self._connection.producer()
        start, starts, futures = 0, [], []
        while start < len(records):
            batch = _RecordBatch(self._max_batch_bytes, producer._message_accumulator._compression_type)
            starts.append(start)
            start = batch.extend(records, start)
            futures.append(await producer.send_batch(batch, self._topic, partition=self._partition))
        return [(start, (await future).offset) for start, future in zip(starts, futures, strict=True)]


class _RecordBatch(BatchBuilder):  # type: ignore[misc]  # aiokafka is untyped
    """A record batch that takes many records at once, without aiokafka's checks and wrappers for each of them."""

    def extend(self, records: list[Record], start: int) -> int:
        """Take records from the index `start` on, as many as fit, and close; return the index of the next one."""
        append = self._builder.append
        count = 0
        for record in islice(records, start, None):
            if append(count, record.time_ms, record.key, record.value, record.headers) is None:
                break
            count += 1
        assert count > 0, "an empty batch takes any record"
        self._relative_offset = count
        self.close()
        return start + count


def _offset_at(first_offsets: list[tuple[int, int]], index: int) -> int:
    """Return the offset of the record `index`, from the record batches' first indices and offsets."""
    start, offset = max(pair for pair in first_offsets if pair[0] <= index)
    return offset + index - start


class Transport(driver.Transport):
    """The driver that `mercuria://` names."""

    Consumer = Consumer
    Producer = Producer
