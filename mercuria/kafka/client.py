"""A client of the command topic for tools that run beside the workers: sends commands and reads events.

It is an ordinary Kafka client, except that it sends commands in whole batches.
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from mercuria.domain.commands import ClientCommand
from mercuria.kafka.fetcher import READ_COMMITTED
from mercuria.kafka.partitioning import Partitioner
from mercuria.topics import WALLET_COMMANDS, WALLET_EVENTS

_encode = msgspec.json.Encoder().encode


class Sent(NamedTuple):
    """The position of a record on the command topic."""

    partition: int
    offset: int


class CommandProducer:
    """Sends commands, each to its wallet's partition."""

    def __init__(self, producer: AIOKafkaProducer, partitions: int) -> None:
        self._producer = producer
        self._partitioner = Partitioner(partitions)

    async def send(self, commands: Sequence[ClientCommand]) -> list[Sent]:
        """Send commands, and wait until Kafka has acknowledged all of them.

        Commands for one wallet keep their order, within a call and across calls.

        Returns:
            The position of each command, in the order of `commands`.
        """
        places: list[Sent | None] = [None] * len(commands)
        waiting = []
        by_partition: dict[int, list[int]] = {}
        for index, command in enumerate(commands):
            by_partition.setdefault(self._partitioner.of(command.wallet_id).partition, []).append(index)
        for partition, indices in by_partition.items():
            async for taken, future in self._enqueue(partition, commands, indices):
                waiting.append((partition, taken, future))
        for partition, taken, future in waiting:
            first = (await future).offset
            for place, index in enumerate(taken):
                places[index] = Sent(partition, first + place)
        return [place for place in places if place is not None]

    async def _enqueue(
        self, partition: int, commands: Sequence[ClientCommand], indices: Iterable[int]
    ) -> AsyncIterator[tuple[list[int], Any]]:
        batch, taken = self._producer.create_batch(), list[int]()
        for index in indices:
            record = {
                "key": self._partitioner.of(commands[index].wallet_id).key,
                "value": _encode(commands[index]),
            }
            if batch.append(timestamp=None, **record) is None:
                yield taken, await self._send(batch, partition)
                batch, taken = self._producer.create_batch(), []
                batch.append(timestamp=None, **record)
            taken.append(index)
        yield taken, await self._send(batch, partition)

    async def _send(self, batch: Any, partition: int) -> Any:
        batch.close()
        return await self._producer.send_batch(batch, WALLET_COMMANDS, partition=partition)


@asynccontextmanager
async def command_producer(servers: str, partitions: int) -> AsyncIterator[CommandProducer]:
    """Connect a `CommandProducer`. While Kafka is unavailable, its commands wait."""
    producer = AIOKafkaProducer(
        bootstrap_servers=servers,
        acks="all",
        enable_idempotence=True,
        max_batch_size=512 * 1024,
        max_request_size=16 * 1024 * 1024,
        request_timeout_ms=120_000,
    )
    await producer.start()
    try:
        yield CommandProducer(producer, partitions)
    finally:
        await producer.stop()


@asynccontextmanager
async def event_reader(
    servers: str, topic: str = WALLET_EVENTS, *, from_beginning: bool = False
) -> AsyncIterator[AIOKafkaConsumer]:
    """Connect a consumer of all partitions of a topic, which reads either new records only or all records."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=servers,
        enable_auto_commit=False,
        fetch_max_wait_ms=100,
        metadata_max_age_ms=30_000,
        isolation_level=READ_COMMITTED,
    )
    await consumer.start()
    try:
        await consumer._client.force_metadata_update()
        names = consumer.partitions_for_topic(topic) or set()
        partitions = [TopicPartition(topic, number) for number in sorted(names)]
        consumer.assign(partitions)
        if not partitions:
            # The topic does not exist yet, so there is nothing to read.
            pass
        elif from_beginning:
            await consumer.seek_to_beginning(*partitions)
        else:
            # The start position is fixed now, not at the first poll.
            await consumer.seek_to_end(*partitions)
            for partition in partitions:
                await consumer.position(partition)
        yield consumer
    finally:
        await consumer.stop()


async def read_log(servers: str, topic: str) -> AsyncIterator[Any]:
    """Yield the records of a topic, from its beginning to its current end."""
    async with event_reader(servers, topic, from_beginning=True) as reader:
        ends = await reader.end_offsets(reader.assignment())
        unread = {tp for tp, end in ends.items() if end > 0}
        while unread:
            for tp, records in (await reader.getmany(timeout_ms=200, max_records=5000)).items():
                for record in records:
                    if record.offset < ends[tp]:
                        yield record
            unread = {tp for tp in unread if await reader.position(tp) < ends[tp]}
