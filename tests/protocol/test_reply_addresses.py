"""A reply goes to the request that has sent the very command that it answers, whatever headers a producer sends."""

import re
from typing import Any
from uuid import UUID

import msgspec
import pytest

from mercuria.domain.commands import Deposit, OpenWallet, Transfer
from mercuria.kafka.sealing import Seal
from mercuria.redis.replies import Address, Reply, address_in, encode_replies
from mercuria.topics import WALLET_COMMANDS
from mercuria.web.asyncapi import COMMAND_HEADERS
from tests.protocol.test_batches import INSTALLATION, NODE, LogRecord, Partition

WALLET_ID = UUID(int=1)
ROUTE = INSTALLATION.partitioner.of(WALLET_ID)
SEAL = INSTALLATION.seal
ADDRESS = Address(NODE, 17)
COMMAND = Deposit(id=UUID(int=7), wallet_id=WALLET_ID, amount=5)
VALUE = msgspec.json.encode(COMMAND)
NAME, SIGNED = ADDRESS.header(VALUE, SEAL)
SIGNATURE = SIGNED.rpartition(b":")[2]


def test_the_address_of_the_request_that_sent_the_command_counts() -> None:
    assert address_in([("x", b"y"), (NAME, SIGNED)], VALUE, SEAL) == ADDRESS


def test_the_document_of_the_topics_says_what_the_header_is() -> None:
    pattern = COMMAND_HEADERS["properties"][NAME]["pattern"]
    assert re.fullmatch(pattern, SIGNED.decode())


FORGED: dict[str, list[tuple[str, bytes | None]]] = {
    "no value": [(NAME, None)],
    "an empty value": [(NAME, b"")],
    "the form of old workers": [(NAME, f"{NODE}:17".encode())],
    "no signature": [(NAME, f"{NODE}:17:".encode())],
    "a false signature": [(NAME, f"{NODE}:17:{'0' * 32}".encode())],
    "another number": [(NAME, f"{NODE}:18:".encode() + SIGNATURE)],
    "the same number, written otherwise": [(NAME, f"{NODE}:017:".encode() + SIGNATURE)],
    "another node": [(NAME, f"{'f' * 32}:17:".encode() + SIGNATURE)],
    "a node in capitals": [(NAME, SIGNED.upper())],
    "something behind it": [(NAME, SIGNED + b"\n")],
    "something before it": [(NAME, b" " + SIGNED)],
    "a number without end": [(NAME, f"{NODE}:{'1' * 5000}:".encode() + SIGNATURE)],
    "letters of two bytes": [(NAME, "é".encode() * 40)],
    "bytes that are no text": [(NAME, b"\xff" * 80)],
    "two megabytes": [(NAME, b"a" * 2**21 + b":1")],
    "two of them": [(NAME, SIGNED), (NAME, SIGNED)],
    "a good one and one without a value": [(NAME, SIGNED), (NAME, None)],
    "thousands": [(NAME, SIGNED)] * 10_000,
    "another name": [("Reply-To", SIGNED)],
    "a name that is no UTF-8": [("reply-to\udcff", SIGNED)],
}


@pytest.mark.parametrize("headers", FORGED.values(), ids=FORGED)
def test_a_header_that_is_not_mercurias_own_counts_as_absent(headers: list[tuple[str, bytes | None]]) -> None:
    assert address_in(headers, VALUE, SEAL) is None


@pytest.mark.parametrize("value", [None, b"", VALUE + b" ", VALUE.replace(b"5", b"6"), b"x" * 2**20])
def test_a_header_that_was_copied_to_another_command_counts_as_absent(value: bytes | None) -> None:
    assert address_in([(NAME, SIGNED)], value, SEAL) is None
    assert address_in([(NAME, SIGNED)], VALUE, Seal(b"1" * 32)) is None


def open_partition() -> Partition:
    """Return the partition of an open wallet with an overdraft, decided up to offset 0."""
    opening = OpenWallet(
        id=UUID(int=99), wallet_id=WALLET_ID, owner_id=UUID(int=98), currency="EUR", overdraft_limit=100
    )
    partition = Partition(ROUTE.partition)
    partition.keep(partition.decide([record(0, opening)]))
    return partition


def record(offset: int, command: Any, *headers: tuple[str, bytes | None]) -> Any:
    value = command if isinstance(command, bytes) else msgspec.json.encode(command)
    return LogRecord(WALLET_COMMANDS, ROUTE.partition, offset, offset, ROUTE.key, value, headers)  # type: ignore[arg-type]


def test_a_hostile_command_that_names_the_number_of_a_request_does_not_answer_it() -> None:
    hostile = Deposit(id=UUID(int=8), wallet_id=WALLET_ID, amount=1000)
    records = [
        *(record(number, hostile, *headers) for number, headers in enumerate(FORGED.values(), 1)),
        record(50, hostile, (NAME, SIGNED)),
        record(51, b"{}", (NAME, SIGNED)),
        record(52, COMMAND, (NAME, SIGNED)),
    ]
    ((node, reply),) = open_partition().decide(records).outputs.replies
    assert (node, reply.number, reply.command_id, reply.is_replayed) == (NODE, 17, COMMAND.id, False)


def test_the_address_goes_with_the_legs_and_is_signed_for_each() -> None:
    command = Transfer(id=UUID(int=9), wallet_id=WALLET_ID, to_wallet_id=UUID(int=2), amount=5)
    header = ADDRESS.header(msgspec.json.encode(command), SEAL)
    batch = open_partition().decide([record(1, command, header)])
    ((leg,),) = batch.outputs.legs.values()
    assert batch.outputs.replies == []
    assert address_in(leg.headers, leg.value, SEAL) == ADDRESS
    assert address_in([header], leg.value, SEAL) is None
    assert max(len(value) for _, value in leg.headers) <= 85


def test_a_refusal_says_which_command_it_answers() -> None:
    refused = Deposit(id=UUID(int=9), wallet_id=WALLET_ID, amount=-5)
    header = ADDRESS.header(msgspec.json.encode(refused), SEAL)
    ((_, reply),) = open_partition().decide([record(1, refused, header)]).outputs.replies
    assert (reply.code, reply.command_id) == ("amount_must_be_positive", UUID(int=9))


def test_a_reply_can_be_read_by_workers_of_the_version_before_and_after() -> None:
    class Before(msgspec.Struct, array_like=True):
        number: int
        is_replayed: bool = False

    message = encode_replies([Reply(17, True, command_id=UUID(int=7))])
    assert msgspec.msgpack.decode(message, type=list[Before]) == [Before(17, True)]
    old = msgspec.msgpack.encode([Before(17, True)])
    assert msgspec.msgpack.decode(old, type=list[Reply]) == [Reply(17, True)]
