"""Tables come back from their changelogs, whatever was lost, and whoever wrote into them too late."""

import asyncio
import shutil
from typing import Any
from uuid import UUID, uuid4

from mercuria.domain.commands import Deposit
from mercuria.embedded.stack import Stack
from mercuria.embedded.worker import Worker
from mercuria.kafka.client import read_log
from mercuria.tables.balance_rows import POSITION_KEY, read_rows
from mercuria.topics import BALANCES_CHANGELOG, RECEIPTS_CHANGELOG
from tests.embedded.conftest import eventually
from tests.harness.audit.stack import audit_stack
from tests.protocol.kafka_client import KafkaClient


async def restart(worker: Worker, *, with_files: bool) -> None:
    """Stop a worker and start it again, perhaps without the files of its tables."""
    await asyncio.to_thread(worker.stop)
    if not with_files:
        shutil.rmtree(worker.directory.path / worker.name)
    await asyncio.to_thread(worker.start)


async def rows_of(stack: Stack, topic: str, partition: int, key: bytes) -> list[bytes]:
    """Return all rows of a key in a changelog, the oldest first."""
    records = read_log(stack.env["MERCURIA_KAFKA"], topic)
    return [record.value async for record in records if record.partition == partition and record.key == key]


async def write_late(kafka_client: KafkaClient, stack: Stack, wallet_id: UUID, version: int) -> None:
    """Write what a zombie writer would: a wallet and a position as they were some batches ago."""
    partition = kafka_client.partitioner.of(wallet_id).partition
    wallets = await rows_of(stack, BALANCES_CHANGELOG, partition, wallet_id.bytes)
    positions = await rows_of(stack, BALANCES_CHANGELOG, partition, POSITION_KEY)
    (old,) = (row for row in wallets if next(decoded(wallet_id.bytes, row)).version == version)
    await kafka_client.put(old, key=wallet_id.bytes, partition=partition, topic=BALANCES_CHANGELOG)
    await kafka_client.put(positions[-3], key=POSITION_KEY, partition=partition, topic=BALANCES_CHANGELOG)


def decoded(key: bytes, value: bytes) -> Any:
    return read_rows([(key, value)])


async def last_version(stack: Stack, partition: int, wallet_id: UUID) -> int:
    """Return the version that a compacted changelog would keep."""
    rows = await rows_of(stack, BALANCES_CHANGELOG, partition, wallet_id.bytes)
    version: int = next(decoded(wallet_id.bytes, rows[-1])).version
    return version


async def noticed(said: list[str], already: int) -> None:
    """Wait until a worker has ended itself, and is ready again."""

    def is_back() -> bool:
        return any("exit code 70" in each for each in said[already:]) and said[-1].endswith("is ready again.")

    try:
        await asyncio.to_thread(eventually, is_back, 90)
    finally:
        print(*said[already:], sep="\n")


async def test_tables_come_back_when_a_workers_files_are_gone(
    kafka_client: KafkaClient, live_stack: Stack, lone_worker: Worker
) -> None:
    wallet_id = await kafka_client.wallet(100)
    command = Deposit(id=uuid4(), wallet_id=wallet_id, amount=5, currency="EUR")
    sent = await kafka_client.send(command)
    await kafka_client.answer(sent)
    await restart(lone_worker, with_files=False)
    assert (await kafka_client.deposit(wallet_id, 1)).balance == 106
    await kafka_client.send(command)
    await kafka_client.answer_bytes(sent, times=2)
    assert (await kafka_client.deposit(wallet_id, 1)).balance == 107


async def test_a_zombies_late_rows_are_noticed_and_written_over(
    kafka_client: KafkaClient, live_stack: Stack, lone_worker: Worker, said: list[str]
) -> None:
    wallet_id = await kafka_client.wallet(100)
    for _ in range(3):
        await kafka_client.deposit(wallet_id, 1)
    # What is decided last may still be on its way into the changelog, and find the gap by itself.
    already = len(said)
    await write_late(kafka_client, live_stack, wallet_id, version=3)
    # At the latest, the next append finds a gap, and the worker starts again.
    assert (await kafka_client.deposit(wallet_id, 1)).balance == 104
    await noticed(said, already)
    assert (await kafka_client.deposit(wallet_id, 1)).balance == 105
    await restart(lone_worker, with_files=False)
    assert (await kafka_client.deposit(wallet_id, 1)).balance == 106
    assert (await audit_stack(live_stack)).violations == []


async def test_what_a_zombie_wrote_over_is_written_again_even_after_further_restarts(
    kafka_client: KafkaClient, live_stack: Stack, lone_worker: Worker
) -> None:
    wallet_id = await kafka_client.wallet(100)
    partition = kafka_client.partitioner.of(wallet_id).partition
    neighbour = await kafka_client.wallet(partition=partition)
    for _ in range(3):
        await kafka_client.deposit(wallet_id, 1)
    await asyncio.to_thread(lone_worker.stop)
    await write_late(kafka_client, live_stack, wallet_id, version=3)
    await asyncio.to_thread(lone_worker.start)
    # It has recovered past the late rows. Nothing is decided before it starts once more.
    await restart(lone_worker, with_files=True)
    assert await last_version(live_stack, partition, wallet_id) == 3
    await kafka_client.deposit(neighbour, 1)
    await kafka_client.deposit(neighbour, 1)
    assert await last_version(live_stack, partition, wallet_id) == 5


async def test_late_receipts_do_no_harm(
    kafka_client: KafkaClient, live_stack: Stack, lone_worker: Worker, said: list[str]
) -> None:
    wallet_id = await kafka_client.wallet(100)
    route = kafka_client.partitioner.of(wallet_id)
    command = Deposit(id=uuid4(), wallet_id=wallet_id, amount=5, currency="EUR")
    sent = await kafka_client.send(command)
    await kafka_client.answer(sent)
    await kafka_client.deposit(wallet_id, 1)
    key = b"s" + sent.offset.to_bytes(8)
    (row,) = await rows_of(live_stack, RECEIPTS_CHANGELOG, route.partition, key)
    already = len(said)
    await kafka_client.put(row, key=key, partition=route.partition, topic=RECEIPTS_CHANGELOG)
    await kafka_client.deposit(wallet_id, 1)
    await noticed(said, already)
    await kafka_client.send(command)
    await kafka_client.answer_bytes(sent, times=2)
    assert (await kafka_client.deposit(wallet_id, 1)).balance == 108
