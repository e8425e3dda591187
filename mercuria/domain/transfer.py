"""Transfers: what must happen in another wallet because of an event in this one.

A debit sends a credit to the receiver; a refused credit sends a refund to the sender; a refund is never
refused. So every transfer ends, with the money in exactly one of the two wallets.
"""

from msgspec import UNSET

from mercuria.domain.commands import Credit, Decidable, Leg, Origin, Position, Refund, Transfer, WalletSide
from mercuria.domain.events import BalanceUpdated, CommandRejected, Event


def react(command: Decidable, event: Event, position: Position) -> Leg | None:
    """Return the leg, still without its mac, that `command` and its `event` at `position` require.

    Call it only for an event that is emitted for the first time: a second leg would move the money twice.
    """
    if type(command) is Transfer and type(event) is BalanceUpdated:
        assert event.from_wallet is not None
        return Credit(
            origin=Origin(position.partition, position.offset),
            wallet_id=command.to_wallet_id,
            id=command.id,
            initiated=position,
            amount=command.amount,
            currency=event.currency,
            sender=event.from_wallet,
            reference=command.reference,
            metadata=command.metadata,
            effective_at=command.effective_at or UNSET,
        )
    if type(command) is Credit and type(event) is CommandRejected:
        return Refund(
            origin=Origin(position.partition, position.offset),
            wallet_id=command.sender.wallet_id,
            id=command.id,
            initiated=command.initiated,
            amount=command.amount,
            currency=command.currency,
            receiver=WalletSide(command.wallet_id),
            code=event.code,
            reference=command.reference,
            metadata=command.metadata,
            effective_at=command.effective_at or UNSET,
        )
    return None
