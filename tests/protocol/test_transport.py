"""Batches as they come from Kafka: none is missing, and a gap that is none is not taken for one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from mercuria.embedded.stack import Stack
from mercuria.kafka import fetcher as fetching
from mercuria.kafka.transport import MAX_BATCH_RECORDS, Fetched, _cut


async def new_topic(servers: str) -> str:
    """Make a topic with one partition, and return its name."""
    name = f"test-{uuid4()}"
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, 1, 1)])
    finally:
        await admin.close()
    return name


async def write_transactions(servers: str, topic: str, count: int) -> None:
    """Write two records in each of some transactions; half of these are aborted. Each leaves a marker in the log."""
    producer = AIOKafkaProducer(bootstrap_servers=servers, transactional_id=topic)
    await producer.start()
    try:
        for number in range(count):
            await producer.begin_transaction()
            for _ in range(2):
                await producer.send_and_wait(topic, b"x", partition=0)
            await (producer.commit_transaction() if number % 2 else producer.abort_transaction())
    finally:
        await producer.stop()


@asynccontextmanager
async def reader_of(
    servers: str, topic: str, isolation_level: str = "read_uncommitted"
) -> AsyncIterator[AIOKafkaConsumer]:
    """Connect a consumer of the topic's only partition, from its beginning."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=servers,
        enable_auto_commit=False,
        fetch_max_wait_ms=50,
        isolation_level=isolation_level,
    )
    await consumer.start()
    try:
        partition = TopicPartition(topic, 0)
        consumer.assign([partition])
        await consumer.seek_to_beginning(partition)
        yield consumer
    finally:
        await consumer.stop()


async def fetch(consumer: AIOKafkaConsumer, fetched: list[Fetched], count: int) -> None:
    """Add fetches to `fetched` until they hold `count` records."""
    while sum(map(len, fetched)) < count:
        fetched += (await consumer.getmany(timeout_ms=200)).values()


async def test_fetches_follow_each_other_across_the_markers_of_transactions(live_stack: Stack) -> None:
    servers = live_stack.env["MERCURIA_KAFKA"]
    topic = await new_topic(servers)
    fetched: list[Fetched] = []
    async with reader_of(servers, topic) as consumer:
        # Written while it reads, so that some fetches end before a marker and some find nothing else.
        writing = asyncio.create_task(write_transactions(servers, topic, 20))
        await fetch(consumer, fetched, 40)
        await writing
    assert all(isinstance(records, Fetched) for records in fetched)
    ends = [0] + [records[-1].offset + 1 for records in fetched]
    assert [records.start for records in fetched] == ends[:-1]
    assert ends[-1] > 40, "the markers have offsets, too"


@pytest.mark.parametrize(("isolation_level", "visible"), [("read_uncommitted", 80), ("read_committed", 40)])
async def test_batches_follow_each_other_however_little_is_taken_at_a_time(
    live_stack: Stack, monkeypatch: pytest.MonkeyPatch, isolation_level: str, visible: int
) -> None:
    servers = live_stack.env["MERCURIA_KAFKA"]
    topic = await new_topic(servers)
    monkeypatch.setattr(fetching, "TAKEN_RECORDS", 3)
    monkeypatch.setattr(fetching.ParsedRecords, "batched_topics", {topic})
    fetched: list[Fetched] = []
    async with reader_of(servers, topic, isolation_level) as consumer:
        writing = asyncio.create_task(write_transactions(servers, topic, 20))
        await fetch(consumer, fetched, visible // 2 - 4)
        await writing
        await write_transactions(servers, topic, 20)
        # From the middle of what was fetched, as after a rebalance.
        middle = fetched.pop()
        consumer.seek(TopicPartition(topic, 0), middle.start)
        await fetch(consumer, fetched, visible)
    assert all(len(records) <= 4 for records in fetched)
    ends = [0] + [records[-1].offset + 1 for records in fetched]
    assert [records.start for records in fetched] == ends[:-1]
    offsets = [record.offset for records in fetched for record in records]
    assert offsets == sorted(set(offsets)) and len(offsets) == visible


async def test_a_marker_behind_the_last_record_of_a_fetch_is_no_gap(live_stack: Stack) -> None:
    servers = live_stack.env["MERCURIA_KAFKA"]
    topic = await new_topic(servers)
    fetched: list[Fetched] = []
    async with reader_of(servers, topic) as consumer:
        for _ in range(5):
            # What is there when it reads ends in a marker each time.
            await write_transactions(servers, topic, 1)
            await fetch(consumer, fetched, sum(map(len, fetched)) + 2)
    ends = [0] + [records[-1].offset + 1 for records in fetched]
    assert [records.start for records in fetched] == ends[:-1]


def test_a_long_fetch_is_cut_into_batches_that_follow_each_other() -> None:
    count = 2 * MAX_BATCH_RECORDS + 1
    records = Fetched([SimpleNamespace(offset=10 + 2 * index) for index in range(count)], start=7)
    pieces = list(_cut(records))
    assert [len(piece) for piece in pieces] == [MAX_BATCH_RECORDS, MAX_BATCH_RECORDS, 1]
    assert [piece.start for piece in pieces] == [7, *(piece[-1].offset + 1 for piece in pieces[:-1])]
