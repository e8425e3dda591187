"""The producer of the transport driver: whole record batches, idempotent, acknowledged by all replicas."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.producer.message_accumulator import BatchBuilder
from faust.transport.drivers import aiokafka as driver
from msgspec import Struct

from mercuria.topics import max_batch_bytes

MAX_CONNECTIONS = 16
"""The maximum number of connections over which a worker produces the output of its partitions."""


class Record(Struct, frozen=True, gc=False, array_like=True):
    """A record to append. `time_ms` is its timestamp; `headers` are pairs of name and bytes."""

    key: bytes | None
    value: bytes | None
    time_ms: int | None
    headers: list[tuple[str, bytes]] = []


class Producer(driver.Producer):
    """Faust's producer, idempotent, with a method that appends whole batches."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._connections: dict[int | str, _Connection] = {}
        self._lanes: dict[tuple[int | str, str, int], _Lane] = {}

    def _settings_extra(self) -> Mapping[str, Any]:
        return {"acks": "all", "enable_idempotence": True}

    def enqueue(
        self, source: int | str, topic: str, partition: int, records: Sequence[Record]
    ) -> asyncio.Future[int]:
        """Append records that come from the partition `source`, or from another source with that name.

        The records are appended in order, in as few record batches as possible.

        Returns:
            The offset of the first record, after Kafka has acknowledged all of them; -1 if there are none.
        """
        number = source if isinstance(source, str) else source % MAX_CONNECTIONS
        lane = self._lanes.get((number, topic, partition))
        if lane is None:
            connection = self._connections.get(number)
            if connection is None:
                connection = self._connections[number] = _Connection(self._new_producer)
            lane = self._lanes[number, topic, partition] = _Lane(connection, topic, partition)
        return lane.enqueue(records)

    async def flush(self) -> None:
        """Wait until all records are acknowledged. Faust does so before it reads a changelog to its end."""
        await super().flush()
        await asyncio.gather(*(lane.flush() for lane in self._lanes.values()))

    async def on_stop(self) -> None:
        """Drop the records that are still waiting, and stop."""
        for lane in self._lanes.values():
            lane.cancel()
        await super().on_stop()
        for connection in self._connections.values():
            await connection.stop()


class _Connection:
    """A producer of aiokafka that starts on first use.

    It has one request in flight at a time. With one producer for all, the partitions of a worker would wait
    for each other: all decide, then all are sent, and the partition that is ready first waits for the last
    one.
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
    """The queue of records for one partition, over one connection.

    Several senders may wait for the same partition. aiokafka accepts one batch of a partition at a time and
    makes the others poll for their turn. Here, they join the next batch instead.
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
        """Append records; return the index and the offset of the first record of each record batch."""
        producer = await self._connection.producer()
        start, first_offsets = 0, []
        while start < len(records):
            batch = _RecordBatch(self._max_batch_bytes, producer._message_accumulator._compression_type)
            first = start
            start = batch.extend(records, start)
            appended = await producer.send_batch(batch, self._topic, partition=self._partition)
            # One after the other: a batch that Kafka accepts after a rejected one would leave a permanent gap.
            first_offsets.append((first, (await appended).offset))
        return first_offsets


class _RecordBatch(BatchBuilder):  # type: ignore[misc]  # aiokafka is untyped
    """A record batch that takes many records at once, without aiokafka's checks and wrappers for each one."""

    def extend(self, records: list[Record], start: int) -> int:
        """Take as many records from `start` on as fit, and close; return the index of the next one."""
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
    """Return the offset of the record `index`, given the first indices and offsets of the record batches."""
    start, offset = max(pair for pair in first_offsets if pair[0] <= index)
    return offset + index - start
