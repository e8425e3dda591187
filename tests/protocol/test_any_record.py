"""Any bytes in any place of a record: it is decided or refused, fits where it goes, and is so again after a crash."""

from collections.abc import Sequence
from random import Random
from typing import Any
from uuid import UUID

import msgspec
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from hypothesis import given, settings
from hypothesis import strategies as st

from mercuria.agents.batch import Batch
from mercuria.agents.incoming import command_ids, wallet_ids
from mercuria.domain.commands import Deposit, Forwarded, OpenWallet, Origin
from mercuria.domain.parsing import read_command
from mercuria.kafka.cloudevents import read_event
from mercuria.kafka.producer import Record
from mercuria.topics import WALLET_COMMANDS, WALLET_DEAD_LETTERS, WALLET_EVENTS, max_batch_bytes
from tests.protocol.hostile import Hostile, Producer
from tests.protocol.test_batches import (
    INSTALLATION,
    PARTITIONS,
    LogRecord,
    Partition,
    by_topic,
    outputs_of,
)

TOPICS = {"events": WALLET_EVENTS, "dead": WALLET_DEAD_LETTERS, "legs": WALLET_COMMANDS}
WALLETS = [UUID(int=number) for number in range(1, 5)]
MB = 2**20
SIZES = (70_000, 2 * MB - 100, 2 * MB + 100, 9 * MB)


class Strict(Partition):
    """A partition that is asked for nothing but what a worker reads from its tables for a batch."""

    def decide(self, records: Sequence[LogRecord], *, is_behind: bool = False) -> Batch:
        commands = [read_command(record.value) for record in records]
        wallets = {each.int: self.wallets.get(each.int) for each in wallet_ids(commands)}
        ids = {each.int for each in command_ids(commands)}
        receipts = {number: each for number, each in self.receipts.items() if number in ids}
        batch = Batch(INSTALLATION, self.number, self.position, wallets, receipts, is_behind=is_behind)
        for record, command in zip(records, commands, strict=True):
            if not batch.take(record, command) or batch.is_full:
                break
        return batch


class Log:
    """A log that grows while it is decided, a record at a time."""

    def __init__(self) -> None:
        self.records: list[list[LogRecord]] = [[] for _ in range(PARTITIONS)]
        self.outputs: list[list[Any]] = [[] for _ in range(PARTITIONS)]
        self.partitions = [Strict(number) for number in range(PARTITIONS)]
        for wallet_id in WALLETS:
            route = INSTALLATION.partitioner.of(wallet_id)
            opening = OpenWallet(
                id=wallet_id, wallet_id=wallet_id, owner_id=wallet_id, currency="EUR", overdraft_limit=10**6
            )
            self.append(Hostile(route.partition, route.key, msgspec.json.encode(opening), []))

    def append(self, record: Hostile) -> list[Hostile]:
        """Append a record, decide it and all that follows, and return the legs among that."""
        log = self.records[record.partition]
        key, value, headers = record.key, record.value, record.headers
        log.append(LogRecord(WALLET_COMMANDS, record.partition, len(log), 10**12, key, value, headers))  # type: ignore[arg-type]
        batch = self.partitions[record.partition].decide(log[-1:])
        self.partitions[record.partition].keep(batch)
        outputs = outputs_of(batch)
        for topic, _, each in outputs:
            check_fits(TOPICS[topic], each)
        self.outputs[record.partition] += outputs
        legs = [
            Hostile(to, it.key, it.value, it.headers)
            for to, some in batch.outputs.legs.items()
            for it in some
        ]
        return [each for leg in legs for each in (leg, *self.append(leg))]


def check_fits(topic: str, record: Record) -> None:
    """Check that a record has its place in a batch of its topic, before any compression."""
    limit = max_batch_bytes(topic)
    builder = DefaultRecordBatchBuilder(2, 0, False, -1, -1, -1, batch_size=limit)
    builder.append(0, record.time_ms, record.key, record.value, record.headers)
    assert builder.size() <= limit
    assert sum(len(name) + len(value) for name, value in record.headers) < 4096


@given(st.integers(0, 2**32), st.integers(1, 40), st.booleans())
@settings(deadline=None, max_examples=60, print_blob=True)
def test_any_record_is_decided_or_refused_and_decided_alike_after_a_crash(
    seed: int, count: int, is_large: bool
) -> None:
    random = Random(seed)
    log = Log()
    producer = Producer(
        random, INSTALLATION.partitioner, WALLETS, SIZES if is_large else (), large=20, raw_names=True
    )
    good = []
    for _ in range(count):
        record = producer.record()
        good += [record.command] if record.command else []
        producer.seen += log.append(record)
    for partition, records in enumerate(log.records):
        assert log.partitions[partition].position.offset == len(records) - 1, "the stream goes on"
        again = Strict(partition)
        outputs: list[Any] = []
        while again.position.offset + 1 < len(records):
            start = again.position.offset + 1
            batch = again.decide(records[start : start + random.randint(1, 9)])
            outputs += outputs_of(batch)
            again.keep(batch)
        assert by_topic(outputs) == by_topic(log.outputs[partition])
    events = [it.value for some in log.outputs for topic, _, it in some if topic == "events"]
    answered = {
        getattr(it, "transaction_id", None) or getattr(it, "command_id", None)
        for it in map(read_event, events)
    }
    assert {command.id for command in good} <= answered  # type: ignore[attr-defined]


def test_a_command_that_an_older_worker_forwarded_and_is_refused_now_ends_nothing() -> None:
    value = msgspec.json.encode(Deposit(id=UUID(int=9), wallet_id=WALLETS[0], amount=5))
    twice = value.replace(b'"amount"', b'"amount":1,"amount"')
    leg = Forwarded(origin=Origin(2, 7), wallet_id=WALLETS[0], command=msgspec.Raw(twice))
    route, log = INSTALLATION.partitioner.of(WALLETS[0]), Log()
    log.append(Hostile(route.partition, route.key, INSTALLATION.seal.close(msgspec.json.encode(leg)), []))
    event, letter = (record for _, _, record in log.outputs[route.partition][-2:])
    assert read_event(event.value).code == "malformed_command"  # type: ignore[union-attr]
    assert dict(letter.headers)["code"] == b"malformed_command"
