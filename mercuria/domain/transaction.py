"""Transactions: a movement of money as a whole, as people see it, derived from the events of the wallets.

A deposit or withdrawal is one event, a transfer two or three. The last event contains all data of the
transaction, so no event depends on another one.
"""

from collections.abc import Callable
from typing import get_args
from uuid import UUID

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from mercuria.domain.commands import KINDS, Movement, Position, Transfer, WalletSide, comes_in
from mercuria.domain.events import (
    NO_COMMAND,
    BalanceUpdated,
    CommandRejected,
    Failure,
    TransactionStatus,
)
from mercuria.domain.kinds import Kind
from mercuria.domain.rejections import Code

_decode_command: Callable[[Raw], Movement] = msgspec.json.Decoder(Movement).decode
_MOVEMENTS = {str(struct.__struct_config__.tag) for struct in get_args(Movement)}
_OWNERS_REFUSALS = (
    Code.WALLET_CLOSED,
    Code.WALLET_FROZEN,
    Code.CURRENCY_MISMATCH,
    Code.INSUFFICIENT_FUNDS,
    Code.BALANCE_WOULD_OVERFLOW,
)
"""Refusals that only the owner of a wallet gets: for other callers, other refusals take precedence."""


class Transaction(Struct, frozen=True, kw_only=True):
    """One movement of money.

    `initiated` is the record that began the transaction. It identifies the transaction in the log, even if a
    client has used an id twice. The owners are those of the wallets that took part so far. `actor_id` is the
    person who asked for a transaction that no wallet accepted; its `currency` is None if the command named
    none. `completed_at_ms` is None unless the transaction is completed.
    """

    id: UUID
    initiated: Position
    kind: Kind
    status: TransactionStatus
    from_wallet_id: UUID | None
    to_wallet_id: UUID | None
    from_owner_id: UUID | None = None
    to_owner_id: UUID | None = None
    actor_id: UUID | None = None
    amount: int
    currency: str | None
    reference: str | None
    metadata: dict[str, str]
    failure: Failure | None = None
    completed_at_ms: int | None = None
    effective_at: str | None = None

    def is_visible_to(self, person_id: UUID) -> bool:
        """Return whether a person owns one of the wallets, or asked for the transaction and was refused."""
        return person_id in (self.from_owner_id, self.to_owner_id, self.actor_id)


class TransactionCompleted(Struct, frozen=True, gc=False, kw_only=True):
    """Money has moved. `sequence` counts the events of a partition from 1.

    `initiated` is the record of the command topic that began the transaction, `offset` the one that completed it, in
    the event's own partition. The wallets are as they were right after their part; None stands for outside.
    `effective_at` is missing where the command said nothing.
    """

    sequence: int
    offset: int
    transaction_id: UUID
    initiated: Position
    kind: Kind
    amount: int
    currency: str
    from_wallet: WalletSide | None
    to_wallet: WalletSide | None
    reference: str | None
    metadata: dict[str, str]
    effective_at: str | UnsetType = UNSET


class TransactionFailed(Struct, frozen=True, gc=False, kw_only=True):
    """Money did not move, or has come back. Fields are those of `TransactionCompleted`.

    A wallet that took no part is known by its id only; `currency` is None where the command named none.
    """

    sequence: int
    offset: int
    transaction_id: UUID
    initiated: Position
    kind: Kind
    amount: int
    currency: str | None
    from_wallet: WalletSide | None
    to_wallet: WalletSide | None
    reference: str | None
    metadata: dict[str, str]
    failure: Failure
    effective_at: str | UnsetType = UNSET


TransactionEvent = TransactionCompleted | TransactionFailed


def ended(event: BalanceUpdated, sequence: int) -> TransactionEvent | None:
    """Return the event for the transaction that `event` has ended; None if the transaction continues."""
    if event.transaction_status == "completed":
        return TransactionCompleted(
            sequence=sequence,
            offset=event.offset,
            transaction_id=event.transaction_id,
            initiated=event.initiated,
            kind=event.kind,
            amount=event.amount,
            currency=event.currency,
            from_wallet=event.from_wallet,
            to_wallet=event.to_wallet,
            reference=event.reference,
            metadata=event.metadata,
            effective_at=event.effective_at,
        )
    if event.failure is None:
        return None
    return TransactionFailed(
        sequence=sequence,
        offset=event.offset,
        transaction_id=event.transaction_id,
        initiated=event.initiated,
        kind=event.kind,
        amount=event.amount,
        currency=event.currency,
        from_wallet=event.from_wallet,
        to_wallet=event.to_wallet,
        reference=event.reference,
        metadata=event.metadata,
        failure=event.failure,
        effective_at=event.effective_at,
    )


def refused(transaction: Transaction, sequence: int) -> TransactionFailed:
    """Return the event for a transaction that a wallet has refused (`refused_transaction`)."""
    assert transaction.failure is not None, "it was refused"
    return TransactionFailed(
        sequence=sequence,
        offset=transaction.initiated.offset,
        transaction_id=transaction.id,
        initiated=transaction.initiated,
        kind=transaction.kind,
        amount=transaction.amount,
        currency=transaction.currency,
        from_wallet=_side(transaction.from_wallet_id, transaction.from_owner_id),
        to_wallet=_side(transaction.to_wallet_id, transaction.to_owner_id),
        reference=transaction.reference,
        metadata=transaction.metadata,
        failure=transaction.failure,
        effective_at=transaction.effective_at or UNSET,
    )


def _side(wallet_id: UUID | None, owner_id: UUID | None) -> WalletSide | None:
    return None if wallet_id is None else WalletSide(wallet_id, owner_id)


def transaction_of(event: BalanceUpdated, time_ms: int) -> Transaction:
    """Return the transaction as it is after `event`, which happened at `time_ms`."""
    sender, receiver = event.from_wallet, event.to_wallet
    return Transaction(
        id=event.transaction_id,
        initiated=event.initiated,
        kind=event.kind,
        status=event.transaction_status,
        from_wallet_id=sender.wallet_id if sender else None,
        to_wallet_id=receiver.wallet_id if receiver else None,
        from_owner_id=sender.owner_id if sender else None,
        to_owner_id=receiver.owner_id if receiver else None,
        amount=event.amount,
        currency=event.currency,
        reference=event.reference,
        metadata=event.metadata,
        failure=event.failure,
        completed_at_ms=time_ms if event.transaction_status == "completed" else None,
        effective_at=event.effective_at or None,
    )


def refused_transaction(event: CommandRejected, position: Position) -> Transaction | None:
    """Return the transaction that a wallet refused at `position`; None if the command is not a transaction.

    A client's command that reuses an id is not a transaction: that id belongs to another one.
    """
    if event.command_type not in _MOVEMENTS or event.command == NO_COMMAND:
        return None
    command = _decode_command(event.command)
    owner_id = command.actor_id if event.code in _OWNERS_REFUSALS else None
    is_receiver = comes_in(type(command))
    return msgspec.structs.replace(
        asked_transaction(command, position),
        status="failed",
        from_owner_id=None if is_receiver else owner_id,
        to_owner_id=owner_id if is_receiver else None,
        failure=Failure(event.code, event.detail),
    )


def asked_transaction(command: Movement, position: Position) -> Transaction:
    """Return the transaction that `command` asks for at `position`, before a wallet has decided it."""
    return Transaction(
        id=command.id,
        initiated=position,
        kind=KINDS[type(command)],
        status="pending",
        from_wallet_id=None if comes_in(type(command)) else command.wallet_id,
        to_wallet_id=_receiver_id(command),
        actor_id=command.actor_id,
        amount=command.amount,
        currency=command.currency,
        reference=command.reference,
        metadata=command.metadata,
        effective_at=command.effective_at,
    )


def _receiver_id(command: Movement) -> UUID | None:
    if type(command) is Transfer:
        return command.to_wallet_id
    return command.wallet_id if comes_in(type(command)) else None
