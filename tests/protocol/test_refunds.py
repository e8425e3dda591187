"""Money that the receiver does not take comes back, whatever has become of the sender meanwhile."""

from typing import Any
from uuid import UUID, uuid4

import pytest

from mercuria.domain.commands import ClientCommand, CloseWallet, FreezeWallet, Transfer
from mercuria.domain.events import BalanceUpdated
from mercuria.embedded.stack import Stack
from mercuria.kafka.client import command_producer
from tests.protocol.kafka_client import KafkaClient


def transfer(sender: UUID, receiver: UUID, amount: int) -> Transfer:
    return Transfer(id=uuid4(), wallet_id=sender, to_wallet_id=receiver, amount=amount, currency="EUR")


async def unwilling(kafka_client: KafkaClient, why: str) -> UUID:
    """Return a wallet that refuses a credit in EUR for the reason `why`."""
    if why == "wallet_not_found":
        return uuid4()
    receiver = await kafka_client.wallet(currency="JPY" if why == "currency_mismatch" else "EUR")
    if why == "wallet_frozen":
        await kafka_client.do(FreezeWallet(id=uuid4(), wallet_id=receiver))
    if why == "wallet_closed":
        await kafka_client.do(CloseWallet(id=uuid4(), wallet_id=receiver))
    return receiver


def ends(command: Transfer) -> Any:
    """Return what tells the last event of a transfer."""

    def matches(event: Any) -> bool:
        return (
            isinstance(event, BalanceUpdated)
            and event.transaction_id == command.id
            and event.transaction_status != "pending"
        )

    return matches


@pytest.mark.parametrize("why", ["wallet_frozen", "wallet_closed", "wallet_not_found", "currency_mismatch"])
async def test_a_refused_credit_comes_back(kafka_client: KafkaClient, why: str) -> None:
    sender, receiver = await kafka_client.wallet(100), await unwilling(kafka_client, why)
    command = transfer(sender, receiver, 30)
    debit = await kafka_client.do(command)
    assert (debit.balance, debit.transaction_status) == (70, "pending")
    refund = await kafka_client.find(ends(command))
    assert (refund.wallet_id, refund.balance, refund.transaction_status) == (sender, 100, "failed")
    assert refund.failure.code == why and refund.to_wallet.wallet_id == receiver


@pytest.mark.parametrize(
    ("meanwhile", "status"), [(FreezeWallet, "frozen"), (CloseWallet, "open")], ids=["frozen", "closed"]
)
async def test_a_refund_reaches_a_sender_that_was_frozen_or_closed_meanwhile(
    kafka_client: KafkaClient, live_stack: Stack, meanwhile: type[ClientCommand], status: str
) -> None:
    sender = await kafka_client.wallet(100)
    command = transfer(sender, await unwilling(kafka_client, "wallet_not_found"), 100)
    # In one record batch, so that the refund cannot come between the two.
    async with command_producer(
        live_stack.env["MERCURIA_KAFKA"], kafka_client.partitioner.partitions
    ) as producer:
        _, then = await producer.send([command, meanwhile(id=uuid4(), wallet_id=sender)])
    changed = await kafka_client.answer(then)
    assert (changed.balance, changed.version) == (0, 4)
    refund = await kafka_client.find(ends(command))
    assert (refund.balance, refund.status, refund.version) == (100, status, 5)
