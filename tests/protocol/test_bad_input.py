"""Whatever stands on the command topic: it is refused with a stable code, and the stream goes on."""

import json
from collections.abc import Callable
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import msgspec
import pytest

from mercuria.domain.commands import (
    Credit,
    Deposit,
    Forwarded,
    Origin,
    Position,
    Refund,
    Transfer,
    WalletSide,
)
from mercuria.domain.events import CommandRejected
from mercuria.embedded.stack import Stack
from mercuria.kafka.client import Sent, read_log
from mercuria.topics import WALLET_COMMANDS
from tests.protocol.kafka_client import KafkaClient

BALANCE = 100


class Situation(NamedTuple):
    """The wallet that a bad record is about, and others."""

    wallet: UUID
    other: UUID
    in_yen: UUID


def deposit(**fields: Any) -> Callable[[Situation], bytes]:
    """Return a deposit in which some fields are different; None leaves one out."""

    def make(situation: Situation) -> bytes:
        command = {
            "type": "deposit",
            "id": str(uuid4()),
            "wallet_id": str(situation.wallet),
            "amount": 5,
            "currency": "EUR",
        } | fields
        return json.dumps({name: value for name, value in command.items() if value is not None}).encode()

    return make


def with_more(members: str) -> Callable[[Situation], bytes]:
    """Return a deposit that has more members, which may be there already."""
    return lambda situation: deposit()(situation)[:-1] + f",{members}}}".encode()


def transfer(to: str, **fields: Any) -> Callable[[Situation], bytes]:
    """Return a transfer to one of the situation's wallets."""

    def make(situation: Situation) -> bytes:
        return deposit(type="transfer", to_wallet_id=str(getattr(situation, to)), **fields)(situation)

    return make


def leg(mac: str | None, kind: str = "credit") -> Callable[[Situation], bytes]:
    """Return a leg that Mercuria did not write."""

    def make(situation: Situation) -> bytes:
        common = {"origin": Origin(0, 2**40), "wallet_id": situation.wallet}
        begun = Position(0, 2**40, 0)
        money = {
            "id": uuid4(),
            "initiated": begun,
            "amount": 5,
            "currency": "EUR",
            "reference": None,
            "metadata": {},
        }
        forged = {
            "credit": lambda: Credit(**common, **money, sender=WalletSide(situation.other)),
            "refund": lambda: Refund(
                **common, **money, receiver=WalletSide(situation.other), code="wallet_closed"
            ),
            "forwarded": lambda: Forwarded(**common, command=msgspec.Raw(deposit()(situation))),
        }[kind]()
        body = msgspec.json.encode(forged)
        return body if mac is None else body[:-1] + b',"mac":"%b"}' % mac.encode()

    return make


def raw(value: bytes | None) -> Callable[[Situation], bytes | None]:
    """Return these very bytes."""
    return lambda _: value


NO_JSON = "malformed_json"
FALSE_MAC = "0123456789abcdef" * 2

UNREADABLE = {
    "a null value": (raw(None), "empty_record"),
    "an empty value": (raw(b""), "empty_record"),
    "bytes that are no text": (raw(b"\xff\xfe\x00\x80"), NO_JSON),
    "text that is no JSON": (raw(b"deposit 5 EUR"), NO_JSON),
    "half a command": (raw(b'{"type":"deposit","id":"'), NO_JSON),
    "two commands": (raw(b'{"type":"deposit"}{"type":"deposit"}'), NO_JSON),
    "very deep nesting": (raw(b"[" * 60_000), NO_JSON),
    "invalid UTF-8 inside a text": (raw(b'{"type":"\xc3\x28"}'), NO_JSON),
    "a list": (raw(b"[1, 2]"), "malformed_command"),
    "a number": (raw(b"7"), "malformed_command"),
    "JSON's null": (raw(b"null"), "malformed_command"),
    "a megabyte": (raw(b"x" * 1024 * 1024), "record_too_large"),
    "no type": (deposit(type=None), "missing_field"),
    "an unknown type": (deposit(type="steal"), "unknown_command_type"),
    "a type that is no text": (deposit(type=["deposit"]), "unknown_command_type"),
    "an event's type": (deposit(type="wallet.balance_updated"), "unknown_command_type"),
    "no amount": (deposit(amount=None), "missing_field"),
    "no currency to open in": (
        deposit(type="open_wallet", amount=None, currency=None, owner_id=str(uuid4())),
        "missing_field",
    ),
    "no id": (deposit(id=None), "missing_field"),
    "no wallet": (deposit(wallet_id=None), "missing_field"),
    "a field too many": (deposit(fee=1), "unknown_field"),
    "an id that is none": (deposit(id="7"), "invalid_field"),
    "a fraction": (deposit(amount=5.5), "invalid_field"),
    "a float": (deposit(amount=5.0), "invalid_field"),
    "an amount as text": (deposit(amount="5"), "invalid_field"),
    "a truth": (deposit(amount=True), "invalid_field"),
    "2^63": (deposit(amount=2**63), "amount_too_large"),
    "-2^63 - 1": (deposit(amount=-(2**63) - 1), "amount_too_large"),
    "a very long number": (deposit(amount=10**4000), "amount_too_large"),
    "two amounts": (with_more('"amount":1000000'), "malformed_command"),
    "two amounts, one with an escape": (with_more('"amo\\u0075nt":1000000'), "malformed_command"),
    "two wallets": (with_more(f'"wallet_id":"{uuid4()}"'), "malformed_command"),
    "a name twice in metadata": (with_more('"metadata":{"a":"1","a":"2"}'), "malformed_command"),
    "a malformed currency": (deposit(currency="euro\x00"), "unknown_currency"),
    "a currency that is no text": (deposit(currency=978), "invalid_field"),
    "a credit without a mac": (leg(None), "leg_not_authentic"),
    "a credit with an empty mac": (leg(""), "leg_not_authentic"),
    "a credit with a false mac": (leg(FALSE_MAC), "leg_not_authentic"),
    "a refund with a false mac": (leg(FALSE_MAC, "refund"), "leg_not_authentic"),
    "a forwarded command with a false mac": (leg(FALSE_MAC, "forwarded"), "leg_not_authentic"),
}
"""What no wallet decides: it is kept in the dead-letter topic."""

REFUSED = {
    "nothing": (deposit(amount=0), "amount_must_be_positive"),
    "less than nothing": (deposit(amount=-5), "amount_must_be_positive"),
    "-2^63": (deposit(amount=-(2**63)), "amount_must_be_positive"),
    "an unknown currency": (deposit(currency="XYZ"), "unknown_currency"),
    "gold": (deposit(currency="XAU"), "unknown_currency"),
    "another currency": (deposit(currency="JPY"), "currency_mismatch"),
    "a transfer of nothing": (transfer("other", amount=0), "amount_must_be_positive"),
    "a transfer of less than nothing": (transfer("other", amount=-1), "amount_must_be_positive"),
    "a transfer to itself": (transfer("wallet"), "source_and_target_must_differ"),
    "a transfer in another currency": (transfer("in_yen", currency="JPY"), "currency_mismatch"),
    "a transfer of more than there is": (transfer("other", amount=BALANCE + 1), "insufficient_funds"),
    "a withdrawal of 2^63 - 1": (deposit(type="withdraw", amount=2**63 - 1), "insufficient_funds"),
    "a deposit of 2^63 - 1": (deposit(amount=2**63 - 1), "balance_would_overflow"),
}
"""What the wallet refuses."""


async def situation_at(kafka_client: KafkaClient) -> Situation:
    return Situation(
        await kafka_client.wallet(BALANCE),
        await kafka_client.wallet(),
        await kafka_client.wallet(currency="JPY"),
    )


async def assert_nothing_moved(kafka_client: KafkaClient, situation: Situation) -> None:
    """Assert that the stream goes on, and that no money has moved."""
    assert (await kafka_client.deposit(situation.wallet, 1)).balance == BALANCE + 1
    assert (await kafka_client.deposit(situation.other, 1)).balance == 1
    assert (await kafka_client.deposit(situation.in_yen, 1, "JPY")).balance == 1


@pytest.mark.parametrize("name", UNREADABLE)
async def test_what_is_no_command_is_refused_and_kept(kafka_client: KafkaClient, name: str) -> None:
    make, code = UNREADABLE[name]
    situation = await situation_at(kafka_client)
    route = kafka_client.partitioner.of(situation.wallet)
    value = make(situation)
    sent = await kafka_client.put(value, key=route.key, partition=route.partition)
    event = await kafka_client.answer(sent)
    assert isinstance(event, CommandRejected) and event.code == code and event.detail
    letter = await kafka_client.dead_letter(sent)
    assert (letter.value or b"") == (value or b"") and letter.key == route.key
    headers = dict(letter.headers)
    assert headers["code"] == code.encode() and headers["topic"] == WALLET_COMMANDS.encode()
    assert headers["detail"] == event.detail.encode()
    await assert_nothing_moved(kafka_client, situation)


@pytest.mark.parametrize("name", REFUSED)
async def test_what_a_wallet_refuses_moves_nothing(kafka_client: KafkaClient, name: str) -> None:
    make, code = REFUSED[name]
    situation = await situation_at(kafka_client)
    route = kafka_client.partitioner.of(situation.wallet)
    sent = await kafka_client.put(make(situation), key=route.key, partition=route.partition)
    event = await kafka_client.answer(sent)
    assert isinstance(event, CommandRejected) and event.code == code
    assert event.wallet_id == situation.wallet
    await assert_nothing_moved(kafka_client, situation)
    assert sent not in kafka_client.dead_letters


@pytest.mark.parametrize(
    ("key", "code"),
    [(None, "missing_key"), (b"", "missing_key"), (b"wallet", "key_mismatch"), (b"\xff", "key_mismatch")],
)
async def test_a_key_that_is_not_the_wallets_is_refused(
    kafka_client: KafkaClient, key: bytes | None, code: str
) -> None:
    situation = await situation_at(kafka_client)
    partition = kafka_client.partitioner.of(situation.wallet).partition
    sent = await kafka_client.put(deposit()(situation), key=key, partition=partition)
    event = await kafka_client.answer(sent)
    assert isinstance(event, CommandRejected) and event.code == code
    assert (await kafka_client.dead_letter(sent)).key == key
    await assert_nothing_moved(kafka_client, situation)


async def test_an_unknown_wallet_is_not_found(kafka_client: KafkaClient) -> None:
    event = await kafka_client.deposit(uuid4(), 5)
    assert event.code == "wallet_not_found"


async def test_a_command_in_the_wrong_partition_is_forwarded_and_decided_once(
    kafka_client: KafkaClient,
) -> None:
    wallet_id = await kafka_client.wallet(BALANCE)
    route = kafka_client.partitioner.of(wallet_id).partition
    command = Deposit(id=uuid4(), wallet_id=wallet_id, amount=5, currency="EUR")
    wrong = await kafka_client.send(command, partition=(route + 1) % kafka_client.partitioner.partitions)
    event = await kafka_client.find(lambda event: getattr(event, "transaction_id", None) == command.id)
    assert event.balance == BALANCE + 5
    # Sent again, to three partitions: the first answer each time.
    first = Sent(route, event.offset)
    for step in range(3):
        await kafka_client.send(command, partition=(route + step) % kafka_client.partitioner.partitions)
        await kafka_client.answer_bytes(first, times=2 + step)
    assert (await kafka_client.deposit(wallet_id, 1)).balance == BALANCE + 6
    assert wrong not in kafka_client.events and wrong not in kafka_client.dead_letters


async def test_a_copied_leg_moves_nothing(kafka_client: KafkaClient, live_stack: Stack) -> None:
    sender, receiver = await kafka_client.wallet(BALANCE, partition=1), await kafka_client.wallet(partition=2)
    transfer = Transfer(id=uuid4(), wallet_id=sender, to_wallet_id=receiver, amount=40, currency="EUR")
    await kafka_client.do(transfer)
    await kafka_client.find(
        lambda event: getattr(event, "transaction_status", None) == "completed" and event.balance == 40
    )
    leg = await find_leg(live_stack, str(transfer.id))
    route = kafka_client.partitioner.of(receiver)
    again = await kafka_client.put(leg, key=route.key, partition=route.partition)
    elsewhere = await kafka_client.put(leg, key=route.key, partition=route.partition + 1)
    changed = await kafka_client.put(
        leg.replace(b'"amount":40', b'"amount":41'), key=route.key, partition=route.partition
    )
    for sent in (elsewhere, changed):
        assert (await kafka_client.answer(sent)).code == "leg_not_authentic"
        await kafka_client.dead_letter(sent)
    assert (await kafka_client.deposit(receiver, 1)).balance == 41
    assert again not in kafka_client.events


async def find_leg(stack: Stack, transaction_id: str) -> bytes:
    """Return the sealed leg of a transaction, as it stands on the command topic."""
    async for record in read_log(stack.env["MERCURIA_KAFKA"], WALLET_COMMANDS):
        if record.value and b'"type":"credit"' in record.value and transaction_id.encode() in record.value:
            return bytes(record.value)
    raise AssertionError("there is no such leg")
