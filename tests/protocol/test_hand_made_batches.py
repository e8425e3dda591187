"""Record batches that only a hostile or broken client makes: Kafka takes them, each record is decided or refused."""

import msgspec
import pytest

from mercuria.domain.commands import Deposit
from mercuria.embedded.stack import Stack
from mercuria.kafka.client import Sent
from mercuria.topics import WALLET_COMMANDS
from tests.protocol.kafka_client import KafkaClient

from .hand_made import GZIP, LZ4, NONE, SNAPPY, ZSTD, Header, batch, produce, record

PARTITION = 3


class Deposits:
    """Makes deposits of 1 for a wallet, as records."""

    def __init__(self, kafka_client: KafkaClient, wallet_id: object) -> None:
        self._desk = kafka_client
        self._wallet_id = wallet_id

    def record(self, delta: int, headers: tuple[Header, ...] = ()) -> bytes:
        """Return a deposit that stands at `delta` in its batch."""
        command = Deposit(id=self._desk.new_id(), wallet_id=self._wallet_id, amount=1, currency="EUR")
        key = self._desk.partitioner.of(self._wallet_id).key
        return record(delta, msgspec.json.encode(command), key, headers)


@pytest.mark.parametrize("codec", [NONE, GZIP, SNAPPY, LZ4, ZSTD])
async def test_a_header_whose_name_is_not_utf_8_changes_nothing(
    kafka_client: KafkaClient, live_stack: Stack, codec: int
) -> None:
    wallet_id = await kafka_client.wallet(partition=PARTITION)
    deposits = Deposits(kafka_client, wallet_id)
    strange = deposits.record(1, ((b"\xe9tat", b"x"), (b"request-id", b"r-1")))
    made = batch([deposits.record(0), strange, deposits.record(2)], codec=codec)
    first = await produce(live_stack.env["MERCURIA_KAFKA"], WALLET_COMMANDS, PARTITION, made)
    events = [await kafka_client.answer(Sent(PARTITION, first + delta)) for delta in range(3)]
    assert [event.balance for event in events] == [1, 2, 3]


async def test_a_record_at_another_offset_than_its_own_is_a_dead_letter(
    kafka_client: KafkaClient, live_stack: Stack
) -> None:
    wallet_id = await kafka_client.wallet(partition=PARTITION)
    deposits = Deposits(kafka_client, wallet_id)
    made = batch([deposits.record(0), deposits.record(1_000_000), deposits.record(2)])
    first = await produce(live_stack.env["MERCURIA_KAFKA"], WALLET_COMMANDS, PARTITION, made)
    assert (await kafka_client.answer(Sent(PARTITION, first))).balance == 1
    refused = await kafka_client.answer(Sent(PARTITION, first + 1))
    assert refused.code == "unreadable_record" and "its offset" in refused.detail
    assert (await kafka_client.answer(Sent(PARTITION, first + 2))).balance == 2
    dead = await kafka_client.dead_letter(Sent(PARTITION, first + 1))
    assert list(dict(dead.headers))[5:] == ["record-bytes", "digest"]
    # What comes behind is not taken for what was decided already.
    assert (await kafka_client.deposit(wallet_id, 1)).balance == 3


async def test_a_bomb_costs_its_sender_alone(kafka_client: KafkaClient, live_stack: Stack) -> None:
    wallet_id = await kafka_client.wallet(partition=PARTITION)
    deposits = Deposits(kafka_client, wallet_id)
    made = batch([deposits.record(0), record(1, bytes(100 * 1024 * 1024)), deposits.record(2)], codec=ZSTD)
    first = await produce(live_stack.env["MERCURIA_KAFKA"], WALLET_COMMANDS, PARTITION, made)
    assert (await kafka_client.answer(Sent(PARTITION, first))).balance == 1
    for delta in (1, 2):
        assert (await kafka_client.answer(Sent(PARTITION, first + delta))).code == "unreadable_record"
    assert (await kafka_client.deposit(wallet_id, 1)).balance == 2
