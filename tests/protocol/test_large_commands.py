"""Commands as large as they may be: what they make Mercuria write must not become too large for Kafka or itself."""

from typing import Any
from uuid import UUID, uuid4

import msgspec
from aiokafka import AIOKafkaProducer

from mercuria.domain.commands import ClientCommand, Deposit, OpenWallet, Transfer
from mercuria.domain.parsing import MAX_COMMAND_BYTES
from mercuria.embedded.stack import Stack
from mercuria.kafka.client import command_producer
from mercuria.topics import WALLET_COMMANDS
from tests.protocol.kafka_client import KafkaClient


def metadata_of(size_bytes: int) -> dict[str, str]:
    """Return metadata of about this size, in characters of four bytes."""
    emoji = size_bytes // 4
    return {f"{index:02}": "🪙" * min(500, emoji - start) for index, start in enumerate(range(0, emoji, 500))}


def transfer(sender: UUID, receiver: UUID, size_bytes: int) -> Transfer:
    """Return a transfer whose JSON has nearly this size."""
    command = Transfer(
        id=uuid4(), wallet_id=sender, to_wallet_id=receiver, amount=1, currency="EUR", metadata={}
    )
    room = size_bytes - len(msgspec.json.encode(command)) - 50 * len('"00":"",')
    command = msgspec.structs.replace(command, metadata=metadata_of(room), reference="")
    rest = size_bytes - len(msgspec.json.encode(command))
    return msgspec.structs.replace(command, reference="x" * min(255, rest))


def has_got(wallet_id: UUID, balance: int) -> Any:
    """Return what tells that a wallet has got so much."""
    return lambda event: event.wallet_id == wallet_id and getattr(event, "balance", None) == balance


async def send(stack: Stack, kafka_client: KafkaClient, commands: list[ClientCommand]) -> list[Any]:
    """Send commands at once, and return the events that answer them."""
    async with command_producer(stack.env["MERCURIA_KAFKA"], kafka_client.partitioner.partitions) as producer:
        return [await kafka_client.answer(sent) for sent in await producer.send(commands)]


async def test_a_transfer_of_the_largest_size_arrives(kafka_client: KafkaClient) -> None:
    sender, receiver = await kafka_client.wallet(100), await kafka_client.wallet()
    command = transfer(sender, receiver, MAX_COMMAND_BYTES)
    assert len(msgspec.json.encode(command)) == MAX_COMMAND_BYTES
    await kafka_client.do(command)
    await kafka_client.find(has_got(receiver, 1))
    assert (await kafka_client.deposit(receiver, 1)).balance == 2
    assert kafka_client.dead_letters == {}


async def test_the_largest_command_in_a_wrong_partition_arrives(kafka_client: KafkaClient) -> None:
    sender, receiver = await kafka_client.wallet(100), await kafka_client.wallet()
    command = transfer(sender, receiver, MAX_COMMAND_BYTES)
    wrong = (kafka_client.partitioner.of(sender).partition + 1) % kafka_client.partitioner.partitions
    await kafka_client.send(command, partition=wrong)
    await kafka_client.find(has_got(receiver, 1))
    assert kafka_client.dead_letters == {}


async def test_many_large_transfers_in_one_compressed_batch_arrive(
    kafka_client: KafkaClient, live_stack: Stack, said: list[str]
) -> None:
    already, count = len(said), 200
    sender, receiver = await kafka_client.wallet(count, partition=1), await kafka_client.wallet(partition=2)
    route = kafka_client.partitioner.of(sender)
    producer = AIOKafkaProducer(
        bootstrap_servers=live_stack.env["MERCURIA_KAFKA"], compression_type="gzip", max_batch_size=32 * 2**20
    )
    await producer.start()
    batch = producer.create_batch()
    for _ in range(count):
        value = msgspec.json.encode(transfer(sender, receiver, MAX_COMMAND_BYTES))
        assert batch.append(timestamp=None, key=route.key, value=value) is not None
    # Kafka counts the compressed size, and hands all of it to the worker in one fetch.
    await (await producer.send_batch(batch, WALLET_COMMANDS, partition=route.partition))
    await producer.stop()
    await kafka_client.find(has_got(receiver, count))
    assert said[already:] == [], "no worker ends"


async def test_many_wallets_with_large_metadata_are_touched_at_once(
    kafka_client: KafkaClient, live_stack: Stack, said: list[str]
) -> None:
    already, count, partition = len(said), 1000, 3
    openings = [
        OpenWallet(
            id=uuid4(),
            wallet_id=kafka_client.new_id(partition),
            owner_id=uuid4(),
            currency="EUR",
            metadata=metadata_of(5_000),
        )
        for _ in range(count)
    ]
    await send(live_stack, kafka_client, openings)
    deposits = [Deposit(id=uuid4(), wallet_id=each.wallet_id, amount=5, currency="EUR") for each in openings]
    events = await send(live_stack, kafka_client, deposits)
    assert [event.balance for event in events] == [5] * count
    assert said[already:] == [], "no worker ends"
