"""A Faust transport driver that delivers batches: `mercuria://host:port`, on top of Faust's aiokafka driver.

Assignment, acknowledgement, commits, tables and recovery are Faust's. The driver differs as follows:

- A topic with a `BatchSchema` is delivered in lists of records, as aiokafka's parser creates them: they have
  `offset`, `timestamp` (ms), `key`, `value` and `headers`. A list has at most `MAX_BATCH_RECORDS`, if the
  schema cuts them.
- If a table, or PostgreSQL, knows its position in such a topic, reading resumes there, whatever was
  committed: Faust also acknowledges a batch whose agent is cancelled halfway, and fills gaps between the
  offsets that it has seen.
- The producer is Mercuria's own (`kafka.producer`).
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, cast

from faust.transport.drivers import aiokafka as driver
from faust.transport.utils import DefaultSchedulingStrategy, TopicBuffer, TopicIndexMap
from faust.types import TP, ConsumerMessage

from mercuria.kafka.fetcher import Fetched as Fetched
from mercuria.kafka.fetcher import ParsedRecords, read_committed
from mercuria.kafka.producer import Producer
from mercuria.kafka.schema import BatchSchema

BUFFERED_POLL_S = 0.02
"""How long to wait for records while a partition is paused because its queue is full."""

MAX_BATCH_RECORDS = 1000
"""The maximum length of a batch, so that one batch blocks the event loop for some milliseconds at most."""


class BatchScheduler(DefaultSchedulingStrategy):
    """Distributes the records of a poll: round robin over topics and partitions, in batches where wanted."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._schemas: dict[str, BatchSchema | None] = {}

    def wants_batches(self, topic: str) -> bool:
        """Return whether a topic is delivered in batches."""
        return self._schema(topic) is not None

    def map_from_records(  # type: ignore[override]  # Faust's is a class method, but calls it on the instance
        self, records: Mapping[TP, list[Any]]
    ) -> TopicIndexMap:
        """Return the buffers to deliver from, by topic."""
        index: dict[str, TopicBuffer] = {}
        for tp, messages in records.items():
            schema = self._schema(tp.topic)
            pieces: list[Any] = messages
            if schema is not None:
                fetched = cast(Fetched, messages)
                pieces = list(_cut(fetched)) if schema.cut else [fetched] if fetched else []
            index.setdefault(tp.topic, TopicBuffer()).add(tp, pieces)
        return index

    def _schema(self, topic: str) -> BatchSchema | None:
        if topic not in self._schemas:
            channels = [channel for channel in self._app.topics if topic in channel.topics]
            if not channels:
                return None
            schemas = (channel.schema for channel in channels)
            self._schemas[topic] = next((each for each in schemas if isinstance(each, BatchSchema)), None)
            if self._schemas[topic] is not None:
                ParsedRecords.batched_topics.add(topic)
        return self._schemas[topic]


def _cut(records: Fetched) -> Iterator[Fetched]:
    start = records.start
    for index in range(0, len(records), MAX_BATCH_RECORDS):
        piece = Fetched(records[index : index + MAX_BATCH_RECORDS], start)
        start = piece[-1].offset + 1
        yield piece


class _ReadOffsets(defaultdict[TP, int | None]):
    """The offsets up to which Faust has read each partition, with which it drops records that it reads again.

    For batched topics, it must not: after a seek, Faust may set the offset of a batch that it dropped because
    of the seek, and then drop the batches before it. An agent that takes batches knows its own processed
    offset.
    """

    def __init__(self, wants_batches: Callable[[str], bool]) -> None:
        super().__init__(lambda: None)
        self._wants_batches = wants_batches

    def __getitem__(self, tp: TP) -> int | None:
        return None if self._wants_batches(tp.topic) else super().__getitem__(tp)


class _ConsumerThread(driver.AIOKafkaConsumerThread):
    """Faust's consumer thread, which skips the records of aborted Kafka transactions."""

    def _create_worker_consumer(self, transport: Any) -> Any:
        return read_committed(super()._create_worker_consumer(transport))


class Consumer(driver.Consumer):
    """Faust's consumer, with batches."""

    def _new_consumer_thread(self) -> driver.AIOKafkaConsumerThread:
        return _ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.scheduler: BatchScheduler = BatchScheduler(self.app)
        self._read_offset = _ReadOffsets(self.scheduler.wants_batches)
        self._dropped = asyncio.Event()

    def on_buffer_drop(self, tp: TP) -> None:
        """Resume reading of a partition at once when its queue has room."""
        super().on_buffer_drop(tp)
        self._dropped.set()

    async def _wait_next_records(self, timeout: float) -> tuple[Any, Any]:  # noqa: ASYNC109  Faust's
        if self._buffered_partitions:
            # Faust sleeps for a second if the queues of all partitions are full. While it waits for records of one
            # partition, it does not notice that the queue of another has room again.
            timeout = BUFFERED_POLL_S
            if not self._get_active_partitions():
                self._dropped.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(timeout):
                        await self._dropped.wait()
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
            record,  # type: ignore[arg-type]  # A BatchSchema expects a list.
            None,
            0,
            0,
            tp,
            generation_id=self.app.consumer_generation_id,
        )

    async def perform_seek(self) -> None:
        """Seek to the offsets at which reading resumes. The caller resumes the flow afterwards."""
        # The flow stops because Faust empties the queues after the seek, which would drop records delivered meanwhile.
        self.stop_flow()
        await super().perform_seek()

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Seek to the offsets at which reading resumes, and return them."""
        offsets = dict(await super().seek_to_committed())
        app: Any = self.app
        known: dict[TP, int] = await app.resume_at(offsets)
        if known:
            await self.seek_wait(known)
        return offsets | known

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        # A batch covers all offsets up to its last one, so there are no gaps to record.
        if not self.scheduler.wants_batches(tp.topic):
            await super()._add_gap(tp, offset_from, offset_to)

    def _new_offset(self, tp: TP) -> int | None:
        if not self.scheduler.wants_batches(tp.topic):
            return super()._new_offset(tp)
        acked = self._acked[tp]
        if not acked:
            return None
        # Batches of a partition are processed one at a time, so all batches before the last one are done, too.
        last = max(acked)
        acked.clear()
        self._acked_index[tp].clear()
        return last + 1


class Transport(driver.Transport):
    """The driver for `mercuria://` URLs."""

    Consumer = Consumer
    Producer = Producer
