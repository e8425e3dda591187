"""What Kafka takes by its compressed size may be far larger: what follows fits, and what is kept says what it was."""

from collections.abc import AsyncIterator
from hashlib import sha256
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from aiokafka import AIOKafkaProducer

from mercuria.agents.dead_letters import FIRST_KEY_BYTES, FIRST_VALUE_BYTES, MAX_KEPT_BYTES, dead_letter_of
from mercuria.domain.commands import Deposit
from mercuria.domain.parsing import read_command
from mercuria.embedded.stack import Stack
from mercuria.kafka.client import Sent
from mercuria.topics import WALLET_COMMANDS
from tests.protocol.kafka_client import KafkaClient
from tests.protocol.test_batches import LogRecord

MB = 2**20


@pytest.fixture
async def squeezing(live_stack: Stack) -> AsyncIterator[AIOKafkaProducer]:
    """Return a producer that compresses, so that Kafka takes from it what is very large."""
    producer = AIOKafkaProducer(
        bootstrap_servers=live_stack.env["MERCURIA_KAFKA"],
        compression_type="zstd",
        max_request_size=128 * MB,
        max_batch_size=128 * MB,
    )
    async with producer:
        yield producer


async def put(producer: AIOKafkaProducer, partition: int, **record: Any) -> Sent:
    metadata = await producer.send_and_wait(WALLET_COMMANDS, partition=partition, **record)
    return Sent(metadata.partition, metadata.offset)


async def test_a_value_that_only_fits_compressed_is_refused_and_its_beginning_kept(
    kafka_client: KafkaClient, squeezing: AIOKafkaProducer, said: list[str]
) -> None:
    already, wallet_id = len(said), await kafka_client.wallet()
    route = kafka_client.partitioner.of(wallet_id)
    value = b'{"type":"deposit",' + b" " * 48 * MB
    sent = await put(squeezing, route.partition, key=route.key, value=value, headers=[("a", b"bc")])
    assert (await kafka_client.answer(sent)).code == "record_too_large"  # type: ignore[union-attr]
    letter = await kafka_client.dead_letter(sent)
    assert (letter.key, letter.value) == (route.key, value[:FIRST_VALUE_BYTES])
    headers = dict(letter.headers)
    assert list(headers)[5:] == ["digest", "key-bytes", "value-bytes", "headers-bytes"]
    assert headers["digest"] == sha256(route.key + value).hexdigest().encode()
    sizes = [int(headers[f"{part}-bytes"]) for part in ("key", "value", "headers")]
    assert sizes == [len(route.key), len(value), 3]
    assert (await kafka_client.deposit(wallet_id, 1)).balance == 1
    assert said[already:] == [], "no worker ends"


async def test_a_key_that_only_fits_compressed_is_refused_and_its_beginning_kept(
    kafka_client: KafkaClient, squeezing: AIOKafkaProducer, said: list[str]
) -> None:
    already, wallet_id = len(said), await kafka_client.wallet()
    route = kafka_client.partitioner.of(wallet_id)
    value = msgspec.json.encode(Deposit(id=uuid4(), wallet_id=wallet_id, amount=5))
    sent = await put(squeezing, route.partition, key=route.key * 200_000, value=value)
    assert (await kafka_client.answer(sent)).code == "key_mismatch"  # type: ignore[union-attr]
    letter = await kafka_client.dead_letter(sent)
    assert (letter.key, letter.value) == ((route.key * 99)[:FIRST_KEY_BYTES], value)
    assert (await kafka_client.deposit(wallet_id, 1)).balance == 1
    assert said[already:] == [], "no worker ends"


async def test_a_command_is_decided_whose_headers_only_fit_compressed(
    kafka_client: KafkaClient, squeezing: AIOKafkaProducer, said: list[str]
) -> None:
    already, wallet_id = len(said), await kafka_client.wallet()
    route = kafka_client.partitioner.of(wallet_id)
    value = msgspec.json.encode(Deposit(id=uuid4(), wallet_id=wallet_id, amount=5))
    headers = [("request-id", b"x" * 16 * MB), ("reply-to", b"0" * 16 * MB), ("x" * 4 * MB, None)]
    sent = await put(squeezing, route.partition, key=route.key, value=value, headers=headers)
    assert (await kafka_client.answer(sent)).balance == 5  # type: ignore[union-attr]
    assert said[already:] == [], "no worker ends"


async def test_many_large_records_in_one_compressed_batch_are_all_kept(
    kafka_client: KafkaClient, squeezing: AIOKafkaProducer, said: list[str]
) -> None:
    already, wallet_id = len(said), await kafka_client.wallet()
    route, batch = kafka_client.partitioner.of(wallet_id), squeezing.create_batch()
    value = b"x" * (2 * MB - 100)
    for _ in range(20):
        assert batch.append(timestamp=None, key=route.key, value=value) is not None
    appended = await squeezing.send_batch(batch, WALLET_COMMANDS, partition=route.partition)
    first = (await appended).offset
    letters = [await kafka_client.dead_letter(Sent(route.partition, first + index)) for index in range(20)]
    assert all(letter.value == value for letter in letters)
    assert said[already:] == [], "no worker ends"


@pytest.mark.parametrize(("size", "is_whole"), [(MAX_KEPT_BYTES, True), (MAX_KEPT_BYTES + 1, False)])
@pytest.mark.parametrize("key_bytes", [None, 0, 36, 2000])
def test_what_kafka_takes_without_compression_is_kept_whole(
    size: int, is_whole: bool, key_bytes: int | None
) -> None:
    key = None if key_bytes is None else b"k" * key_bytes
    value = b"v" * (size - (key_bytes or 0))
    record = LogRecord(WALLET_COMMANDS, 3, 17, 10**12, key, value, [("\udce9", b"1"), ("a", None)])  # type: ignore[list-item]
    fault = read_command(value)
    letter = dead_letter_of(3, record, fault)  # type: ignore[arg-type]
    if is_whole:
        assert (letter.key, letter.value) == (key, value)
        assert "digest" not in dict(letter.headers)
    else:
        assert letter.key == (None if key is None else key[:FIRST_KEY_BYTES])
        assert letter.value == value[:FIRST_VALUE_BYTES]
        assert dict(letter.headers)["headers-bytes"] == b"3"
