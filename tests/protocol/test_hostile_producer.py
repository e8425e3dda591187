"""Whatever headers a producer sends: its command is decided, no request gets its answer, and no worker ends."""

import asyncio
import string
from random import Random
from time import perf_counter
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from aiokafka import AIOKafkaProducer

from mercuria.domain.commands import Deposit, Transfer
from mercuria.embedded.stack import Stack
from mercuria.kafka.client import event_reader
from mercuria.redis.replies import REPLY_TO
from mercuria.topics import WALLET_COMMANDS
from tests.protocol.kafka_client import KafkaClient
from tests.web.api_client import ApiClient, ApiClients

HEADERS: dict[str, list[tuple[str, bytes | None]]] = {
    "reply-to without a value": [("reply-to", None)],
    "all of Mercuria's names without values": [
        (name, None) for name in ("reply-to", "request-id", "traceparent", "tracestate")
    ],
    "bytes that are no text": [("reply-to", b"\xff\xfe"), ("request-id", b"\xff"), ("tracestate", b"\x00")],
    "a number that is none": [("reply-to", b"0" * 32 + b":-1:" + b"0" * 32)],
    "a request's id that is a megabyte": [("request-id", b"r" * 2**20)],
    "an empty name": [("", b""), ("", None)],
    "the same name a thousand times": [("reply-to", b"a:1")] * 1000,
    "a name of 100 KB": [("é" * 50_000, b"")],
}


@pytest.mark.parametrize("name", HEADERS)
async def test_a_command_is_decided_whatever_its_headers_are(
    kafka_client: KafkaClient, live_stack: Stack, said: list[str], name: str
) -> None:
    already, wallet_id = len(said), await kafka_client.wallet()
    route = kafka_client.partitioner.of(wallet_id)
    command = Deposit(id=uuid4(), wallet_id=wallet_id, amount=5)
    sent = await kafka_client.put(
        msgspec.json.encode(command), key=route.key, partition=route.partition, headers=HEADERS[name]
    )
    assert (await kafka_client.answer(sent)).balance == 5  # type: ignore[union-attr]
    assert (await kafka_client.deposit(wallet_id, 1)).balance == 6
    assert said[already:] == [], "no worker ends"


async def test_a_header_that_only_fits_compressed_is_not_carried_on(
    kafka_client: KafkaClient, live_stack: Stack, said: list[str]
) -> None:
    already = len(said)
    sender, receiver = await kafka_client.wallet(100, partition=1), await kafka_client.wallet(partition=2)
    letters = "".join(Random(1).choices(string.ascii_letters, k=2_400_000)).encode()
    producer = AIOKafkaProducer(
        bootstrap_servers=live_stack.env["MERCURIA_KAFKA"],
        compression_type="zstd",
        max_request_size=8 * 2**20,
        max_batch_size=8 * 2**20,
    )
    await producer.start()
    command = Transfer(id=uuid4(), wallet_id=sender, to_wallet_id=receiver, amount=40)
    await producer.send_and_wait(
        WALLET_COMMANDS,
        msgspec.json.encode(command),
        key=kafka_client.partitioner.of(sender).key,
        partition=kafka_client.partitioner.of(sender).partition,
        headers=[("reply-to", letters + b":1")],
    )
    await producer.stop()
    await kafka_client.find(lambda event: event.wallet_id == receiver and getattr(event, "balance", 0) == 40)
    assert said[already:] == [], "no worker ends"


async def test_a_request_gets_its_own_answer_while_a_producer_names_its_number(
    kafka_client: KafkaClient, live_stack: Stack
) -> None:
    clients = ApiClients(live_stack)
    zoe = clients.user()
    wallet_id, hostile_id = await zoe.wallet(), await kafka_client.wallet()
    node, number, header = await address_of_a_request(live_stack, zoe, wallet_id)
    route, took_s = kafka_client.partitioner.of(hostile_id), []
    for amount in range(1, 11):
        forged = [
            form
            for each in range(number + 1, number + 30)
            for form in (f"{node}:{each}".encode(), f"{node}:{each}:".encode() + header.rpartition(b":")[2])
        ]
        putting = [
            kafka_client.put(
                msgspec.json.encode(Deposit(id=uuid4(), wallet_id=hostile_id, amount=10**6)),
                key=route.key,
                partition=route.partition,
                headers=[(REPLY_TO, value)],
            )
            for value in [*forged, header]
        ]
        began_s = perf_counter()
        reply, *_ = await asyncio.gather(zoe.deposit(wallet_id, amount), *putting)
        took_s.append(perf_counter() - began_s)
        assert reply.status == 201, reply
        assert (reply.document["amount"], reply.document["wallet"]["id"]) == (amount, wallet_id)
        assert "Idempotent-Replayed" not in reply.headers
    # A request whose reply is lost looks after 1.5 s.
    assert sorted(took_s)[len(took_s) // 2] < 1.5, took_s
    assert await zoe.balance(wallet_id) == 1 + sum(range(1, 11))


async def address_of_a_request(stack: Stack, person: ApiClient, wallet_id: str) -> tuple[str, int, bytes]:
    """Return what the header of a request's command says, as every reader of the topic sees it: node and number."""
    async with event_reader(stack.env["MERCURIA_KAFKA"], WALLET_COMMANDS) as commands:
        assert (await person.deposit(wallet_id, 1)).status == 201
        async for record in commands:
            headers: dict[str, Any] = dict(record.headers)
            if wallet_id.encode() == record.key and REPLY_TO in headers:
                node, number, _ = headers[REPLY_TO].decode().split(":")
                return node, int(number), headers[REPLY_TO]
    raise AssertionError("the command is on the topic")
