"""Names in an object have no order: two commands that differ in it only are one command, also for old receipts."""

from itertools import permutations
from typing import Any
from uuid import UUID

import msgspec
import pytest

from mercuria.domain.commands import OpenWallet, Transfer
from mercuria.kafka.cloudevents import read_event
from mercuria.tables.receipts import Receipt
from mercuria.topics import WALLET_COMMANDS
from tests.protocol.test_batches import INSTALLATION, LogRecord, Partition

WALLET_ID, OTHER_ID = UUID(int=1), UUID(int=2)
ROUTE = INSTALLATION.partitioner.of(WALLET_ID)
OPENING = OpenWallet(
    id=UUID(int=99), wallet_id=WALLET_ID, owner_id=UUID(int=98), currency="EUR", overdraft_limit=100
)

OLD_RECEIPT = Receipt(1, 1000, bytes.fromhex("c87764a0e6e708bf"), 0, 0, 2, -5)
"""The receipt of `transfer("b", "a")` as it was kept before metadata was put in order."""


def transfer(*names: str) -> Transfer:
    """Return always the same transfer, with metadata under these names, in their order."""
    return Transfer(
        id=UUID(int=7),
        wallet_id=WALLET_ID,
        to_wallet_id=OTHER_ID,
        amount=5,
        metadata={name: name.upper() for name in names},
    )


def opened() -> Partition:
    """Return the partition of an open wallet, decided up to offset 0."""
    partition = Partition(ROUTE.partition)
    partition.keep(partition.decide([record(0, OPENING)]))
    return partition


def record(offset: int, command: Any) -> LogRecord:
    value = msgspec.json.encode(command)
    return LogRecord(WALLET_COMMANDS, ROUTE.partition, offset, 1000 * offset, ROUTE.key, value)


@pytest.mark.parametrize("names", list(permutations("abc")))
def test_the_same_names_in_another_order_get_the_first_answer_byte_for_byte(names: tuple[str, ...]) -> None:
    batch = opened().decide([record(1, transfer("b", "c", "a")), record(2, transfer(*names))])
    first, again = batch.outputs.events
    assert again == first
    assert list(read_event(first.value or b"").metadata) == ["a", "b", "c"]
    assert [len(legs) for legs in batch.outputs.legs.values()] == [1]


def test_names_and_values_that_changed_places_are_another_command() -> None:
    other = msgspec.structs.replace(transfer("a", "b"), metadata={"a": "B", "b": "A"})
    _, refused = opened().decide([record(1, transfer("a", "b")), record(2, other)]).outputs.events
    assert read_event(refused.value or b"").code == "command_id_reused"


def test_a_command_that_comes_again_is_recognised_by_a_receipt_from_before_names_were_ordered() -> None:
    partition = opened()
    partition.receipts[UUID(int=7).int] = OLD_RECEIPT
    (again,) = partition.decide([record(2, transfer("b", "a"))]).outputs.events
    event = read_event(again.value or b"")
    assert (event.offset, event.balance) == (1, -5)
    assert b'"metadata":{"b":"B","a":"A"}' in (again.value or b""), "as the first event had it"


def test_another_command_is_refused_by_a_receipt_from_before_names_were_ordered() -> None:
    partition = opened()
    partition.receipts[UUID(int=7).int] = OLD_RECEIPT
    (refused,) = partition.decide([record(2, transfer("a", "c"))]).outputs.events
    assert read_event(refused.value or b"").code == "command_id_reused"
