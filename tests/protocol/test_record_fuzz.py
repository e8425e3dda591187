"""Random records of any kind, sent to a real stack with two workers: none ends, and every good command is answered.

    MERCURIA_TEST_RECORDS=100000 MERCURIA_TEST_SEED=7 .venv/bin/python -m pytest -s tests/protocol/test_record_fuzz.py

sends more of them, and the same ones again.
"""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import groupby, islice
from random import Random, SystemRandom
from typing import Any
from uuid import UUID

import msgspec
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import MessageSizeTooLargeError
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy

from mercuria.domain.commands import OpenWallet
from mercuria.embedded.stack import Stack
from mercuria.topics import WALLET_COMMANDS
from tests.embedded.conftest import clean_environ
from tests.harness.audit.projections import audit_projections
from tests.harness.audit.stack import audit_stack
from tests.protocol.hostile import Hostile, Producer
from tests.protocol.kafka_client import KafkaClient

RECORDS = int(os.environ.get("MERCURIA_TEST_RECORDS", "2000"))
SEED = int(os.environ.get("MERCURIA_TEST_SEED", SystemRandom().randrange(2**32)))
AT_ONCE = 500
"""So many are sent, and waited for, before more are."""

MB = 2**20
SIZES = (70_000, 1_000_000, 2 * MB - 1000, 3 * MB, 9 * MB, 32 * MB)
COMPRESSIONS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
"""As a record batch says how it is compressed."""


class RawName(str):
    """The name of a header: surrogates in it stand for bytes that are no UTF-8, and are sent as those bytes."""

    def encode(self, *_: Any) -> bytes:
        """Return the bytes that are sent."""
        return super().encode("utf-8", "surrogateescape")


class _Data(msgspec.Struct):
    command_id: UUID | None = None
    transaction_id: UUID | None = None


class _Event(msgspec.Struct):
    data: _Data


@pytest.mark.timeout(240 + RECORDS // 20)
async def test_random_records_end_no_worker_and_every_good_command_is_answered(
    kafka_client: KafkaClient, live_stack: Stack, said: list[str]
) -> None:
    print(f"\n{RECORDS} records of the seed {SEED}")
    already, random = len(said), Random(SEED)
    wallets = [await opened(kafka_client, UUID(int=random.getrandbits(128))) for _ in range(40)]
    producer = Producer(random, kafka_client.partitioner, wallets, SIZES, large=0.5, raw_names=True)
    good = 0
    sender = AIOKafkaProducer(
        bootstrap_servers=live_stack.env["MERCURIA_KAFKA"], max_request_size=64 * MB, max_batch_size=64 * MB
    )
    async with sender:
        for start in range(0, RECORDS, AT_ONCE):
            some = [producer.record() for _ in range(min(AT_ONCE, RECORDS - start))]
            taken = [each for batch in batches(random, some) for each in await send(sender, random, batch)]
            waiting = {each.command.id for each in taken if each.command is not None}
            good += len(waiting)
            await all_answered(kafka_client, waiting)
    for number in range(kafka_client.partitioner.partitions):
        # All that stands before it is decided as well.
        await kafka_client.wallet(partition=number)
    assert said[already:] == [], "no worker ends"
    assert good > RECORDS / 4
    assert (await audit_stack(live_stack)).violations == []
    await audit_projections(live_stack)
    for command in (("reconcile", "--json"), ("ledger", "verify", "--json")):
        done = await asyncio.to_thread(mercuria, live_stack, *command)
        assert done.returncode == 0, done.stdout + done.stderr


async def opened(kafka_client: KafkaClient, wallet_id: UUID) -> UUID:
    """Open a wallet that can go far below zero."""
    await kafka_client.do(
        OpenWallet(
            id=wallet_id, wallet_id=wallet_id, owner_id=wallet_id, currency="EUR", overdraft_limit=10**12
        )
    )
    return wallet_id


def batches(random: Random, records: list[Hostile]) -> Iterator[list[Hostile]]:
    """Yield records of one partition each, in their order there, as many as one record batch shall have."""
    for _, some in groupby(sorted(records, key=partition_of), partition_of):
        while batch := list(islice(some, random.choice([1, 1, 5, 100]))):
            yield batch


def partition_of(record: Hostile) -> int:
    return record.partition


async def send(sender: AIOKafkaProducer, random: Random, records: list[Hostile]) -> list[Hostile]:
    """Send records as one batch, compressed in any way; return them, or none where Kafka does not take them."""
    batch = sender.create_batch()
    # The builder in C wants names that are text.
    compression = random.choice(list(COMPRESSIONS.values()))
    batch._builder = _DefaultRecordBatchBuilderPy(2, compression, 0, -1, -1, 0, 64 * MB)
    for each in records:
        headers = [(RawName(name), value) for name, value in each.headers]
        if batch.append(timestamp=None, key=each.key, value=each.value, headers=headers) is None:
            return []
    batch.close()
    appended = await sender.send_batch(batch, WALLET_COMMANDS, partition=records[0].partition)
    try:
        await appended
    except MessageSizeTooLargeError:
        return []
    return records


async def all_answered(kafka_client: KafkaClient, waiting: set[UUID]) -> None:
    """Wait until each of some commands has its event."""

    def look() -> bool:
        for values in kafka_client.events.values():
            data = msgspec.json.decode(values[0], type=_Event).data
            waiting.discard(data.command_id or data.transaction_id)  # type: ignore[arg-type]
        # All have been looked at, and there may be a hundred thousand.
        kafka_client.events.clear()
        kafka_client.dead_letters.clear()
        return not waiting

    await kafka_client.until(look)


def mercuria(stack: Stack, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command on a stack."""
    command = [sys.executable, "-m", "mercuria", *arguments]
    environ = clean_environ() | stack.env
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=600)
