"""Commands in Kafka transactions: they are decided when these are committed, and never when they are aborted."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID, uuid4

import msgspec
from aiokafka import AIOKafkaProducer

from mercuria.domain.commands import Deposit
from mercuria.embedded.stack import Stack
from mercuria.embedded.worker import Worker
from mercuria.kafka.client import Sent, read_log
from mercuria.kafka.log_ends import LogEnds
from mercuria.topics import WALLET_COMMANDS
from tests.harness.audit.stack import audit_stack
from tests.protocol.kafka_client import KafkaClient

PARTITION = 5


class Client:
    """A client that sends deposits of 1 in transactions."""

    def __init__(self, producer: AIOKafkaProducer, kafka_client: KafkaClient, wallet_id: UUID) -> None:
        self.producer = producer
        self._desk = kafka_client
        self._wallet_id = wallet_id

    async def deposit(self) -> Sent:
        """Deposit 1 in the transaction that is open, and return where that stands."""
        command = Deposit(id=uuid4(), wallet_id=self._wallet_id, amount=1, currency="EUR")
        key = self._desk.partitioner.of(self._wallet_id).key
        sent = await self.producer.send_and_wait(
            WALLET_COMMANDS, msgspec.json.encode(command), key=key, partition=PARTITION
        )
        return Sent(PARTITION, sent.offset)

    async def aborted(self, count: int) -> list[Sent]:
        """Send deposits in a transaction that is aborted."""
        await self.producer.begin_transaction()
        sent = [await self.deposit() for _ in range(count)]
        await self.producer.abort_transaction()
        return sent

    async def committed(self, count: int) -> list[Sent]:
        """Send deposits in a transaction that is committed."""
        await self.producer.begin_transaction()
        sent = [await self.deposit() for _ in range(count)]
        await self.producer.commit_transaction()
        return sent


@asynccontextmanager
async def client_of(stack: Stack, kafka_client: KafkaClient, wallet_id: UUID) -> AsyncIterator[Client]:
    """Connect a client whose transactions end after 20 seconds at the latest."""
    producer = AIOKafkaProducer(
        bootstrap_servers=stack.env["MERCURIA_KAFKA"],
        transactional_id=f"test-{uuid4()}",
        transaction_timeout_ms=20_000,
    )
    await producer.start()
    try:
        yield Client(producer, kafka_client, wallet_id)
    finally:
        await producer.stop()


async def test_a_deposit_counts_when_its_transaction_is_committed(
    kafka_client: KafkaClient, live_stack: Stack
) -> None:
    wallet_id, elsewhere = (
        await kafka_client.wallet(partition=PARTITION),
        await kafka_client.wallet(partition=PARTITION + 1),
    )
    async with client_of(live_stack, kafka_client, wallet_id) as client:
        await client.producer.begin_transaction()
        open_ = await client.deposit()
        # Others wait behind it, in its partition alone.
        behind = await kafka_client.send(Deposit(id=uuid4(), wallet_id=wallet_id, amount=1, currency="EUR"))
        async with LogEnds(live_stack.env["MERCURIA_KAFKA"]) as log_ends:
            assert await log_ends.held_up(WALLET_COMMANDS, range(8)) == {PARTITION: open_.offset}
            assert not await log_ends.is_blank(WALLET_COMMANDS, PARTITION, open_.offset, behind.offset + 1)
            assert (await kafka_client.deposit(elsewhere, 1)).balance == 1
            assert not kafka_client.events[open_] and not kafka_client.events[behind]
            await client.producer.commit_transaction()
            assert (await kafka_client.answer(open_)).balance == 1
            assert (await kafka_client.answer(behind)).balance == 2
            assert await log_ends.held_up(WALLET_COMMANDS, range(8)) == {}


async def test_a_deposit_whose_transaction_is_aborted_never_counts(
    kafka_client: KafkaClient, live_stack: Stack
) -> None:
    wallet_id = await kafka_client.wallet(partition=PARTITION)
    async with client_of(live_stack, kafka_client, wallet_id) as client:
        aborted = await client.aborted(3)
        committed = await client.committed(2)
        aborted += await client.aborted(1)
        assert [(await kafka_client.answer(sent)).balance for sent in committed] == [1, 2]
        # What is left is blank for those who wait for its end.
        async with LogEnds(live_stack.env["MERCURIA_KAFKA"]) as log_ends:
            end = (await log_ends.ends(WALLET_COMMANDS, [PARTITION]))[PARTITION]
            assert await log_ends.is_blank(WALLET_COMMANDS, PARTITION, committed[-1].offset + 1, end)
        aborted += await client.aborted(2)
        assert (await kafka_client.deposit(wallet_id, 1)).balance == 3
    assert not any(kafka_client.events[sent] for sent in aborted)
    seen = {
        record.offset
        async for record in read_log(live_stack.env["MERCURIA_KAFKA"], WALLET_COMMANDS)
        if record.partition == PARTITION
    }
    assert not seen & {sent.offset for sent in aborted} and seen >= {sent.offset for sent in committed}


async def test_a_worker_that_is_killed_between_transactions_goes_on_as_before(
    kafka_client: KafkaClient, live_stack: Stack, lone_worker: Worker
) -> None:
    wallet_id = await kafka_client.wallet(partition=PARTITION)
    async with client_of(live_stack, kafka_client, wallet_id) as client:
        decided = await client.committed(2)
        await client.aborted(3)
        assert (await kafka_client.answer(decided[-1])).balance == 2
        await client.producer.begin_transaction()
        await client.deposit()
        lone_worker.kill()
        await client.deposit()
        await client.producer.abort_transaction()
        await client.aborted(40)
        later = await client.committed(3)
        assert [(await kafka_client.answer(sent)).balance for sent in later] == [3, 4, 5]
    assert (await audit_stack(live_stack)).violations == []


async def test_an_abandoned_transaction_ends_by_itself(kafka_client: KafkaClient, live_stack: Stack) -> None:
    wallet_id = await kafka_client.wallet(partition=PARTITION)
    producer = AIOKafkaProducer(
        bootstrap_servers=live_stack.env["MERCURIA_KAFKA"],
        transactional_id=f"test-{uuid4()}",
        transaction_timeout_ms=2_000,
    )
    await producer.start()
    await producer.begin_transaction()
    abandoned = await Client(producer, kafka_client, wallet_id).deposit()
    behind = await kafka_client.send(Deposit(id=uuid4(), wallet_id=wallet_id, amount=1, currency="EUR"))
    try:
        assert (await kafka_client.answer(behind)).balance == 1
        assert not kafka_client.events[abandoned]
    finally:
        await asyncio.wait([asyncio.create_task(producer.stop())])
