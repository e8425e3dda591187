"""The public form of wallets and transactions.

It leaves out the balance and version of the other side's wallet.
"""

from typing import Annotated, Any, Generic, Literal, TypeVar
from uuid import UUID

from msgspec import Meta, Struct, field

from mercuria.domain.events import Status, TransactionStatus
from mercuria.domain.kinds import Kind
from mercuria.domain.ledger import Direction
from mercuria.domain.transaction import Transaction
from mercuria.domain.wallet import Wallet
from mercuria.projections.ledger.queries import Recorded, StatementLine
from mercuria.projections.wallets.queries import WalletEvent
from mercuria.timestamps import rfc3339

T = TypeVar("T")

MinorUnits = Annotated[int, Meta(description="An amount in minor units of the currency: 1050 is 10.50 EUR.")]
Time = Annotated[str, Meta(extra_json_schema={"format": "date-time"}, description="RFC 3339, in UTC.")]
Currency = Annotated[str, Meta(description="An ISO 4217 code.", examples=["EUR"])]


class WalletBody(Struct, frozen=True):
    """A wallet. `version` goes up by one with each change."""

    id: UUID
    owner_id: UUID
    currency: Currency
    balance: MinorUnits
    overdraft_limit: MinorUnits
    status: Status
    version: int
    metadata: dict[str, str]
    created_at: Time
    updated_at: Time


class FailureBody(Struct, frozen=True):
    """Why a transaction failed."""

    code: str
    detail: str


class TransactionBody(Struct, frozen=True, kw_only=True):
    """A movement of money: from a wallet, to a wallet, or both.

    `currency` and `created_at` are null only until the wallet has decided. `effective_at` is when it counts in
    reports, and null where that is when it was completed.
    """

    id: UUID
    kind: Kind
    status: TransactionStatus
    from_wallet_id: UUID | None
    to_wallet_id: UUID | None
    amount: MinorUnits
    currency: Currency | None
    reference: str | None
    metadata: dict[str, str]
    failure: FailureBody | None
    created_at: Time | None
    completed_at: Time | None
    effective_at: Time | None


class MovementBody(TransactionBody, frozen=True, kw_only=True):
    """A deposit or withdrawal, with the wallet as it was right after it."""

    wallet: WalletBody | None


class WalletEventBody(Struct, frozen=True, kw_only=True):
    """What happened to a wallet: it was opened, its balance changed by `change`, or its status or its limit did.

    Where money moved, `command_id` is the transaction's id, and `counterparty_id` the other wallet of a transfer.
    A transfer that came back is `failed`. `overdraft_limit` is what the limit was changed to, and else null.
    """

    type: Literal[
        "wallet.created", "wallet.balance_updated", "wallet.status_changed", "wallet.limits_changed"
    ]
    version: int
    occurred_at: Time
    command_id: UUID
    kind: Kind | None
    transaction_status: TransactionStatus | None
    change: MinorUnits
    balance: MinorUnits
    status: Status
    reason: str | None
    counterparty_id: UUID | None
    overdraft_limit: MinorUnits | None


class EntryBody(Struct, frozen=True, kw_only=True):
    """An entry of the ledger. `account` is a wallet's id, or `external:deposits` or `external:withdrawals`.

    A credit raises a wallet's balance. `balance_after` and `wallet_version` are the wallet's right after the entry, and
    null for external accounts. `hash` is made of the entry and of the hash before it, and `id` of `hash`. All
    four are null in an entry of another user's wallet. `effective_at` is the transaction's.
    """

    id: UUID | None
    transaction_id: UUID
    account: str
    direction: Direction
    amount: MinorUnits
    currency: Currency
    balance_after: MinorUnits | None
    wallet_version: int | None
    occurred_at: Time
    hash: str | None
    effective_at: Time | None


class TransactionEntries(Struct, frozen=True):
    """What the ledger has of a transaction: a debit and a credit of the same amount, or nothing."""

    transaction_id: UUID
    entries: list[EntryBody]


LineKind = Literal["deposit", "withdrawal", "transfer", "refund"]


class LineBody(Struct, frozen=True, kw_only=True):
    """How the balance of a wallet changed. `amount` is below zero for what left it.

    A `refund` is a transfer that came back. `effective_at` is the transaction's, and null where it has none.
    """

    occurred_at: Time
    kind: LineKind
    transaction_id: UUID
    counterparty_id: UUID | None
    amount: MinorUnits
    balance_after: MinorUnits
    reference: str | None
    effective_at: Time | None


class StatementBody(Struct, frozen=True, kw_only=True):
    """How a wallet's balance came about: at `from` it was `opening_balance`, and before `to` `closing_balance`."""

    wallet_id: UUID
    currency: Currency
    from_: Time = field(name="from")
    to: Time
    opening_balance: MinorUnits
    closing_balance: MinorUnits
    lines: list[LineBody]


class Page(Struct, Generic[T], frozen=True):
    """A part of a list; `next_cursor` leads to the next one."""

    data: list[T]
    has_more: bool
    next_cursor: str | None


def wallet_body(wallet: Wallet) -> WalletBody:
    """Return the public form of a wallet."""
    return WalletBody(
        wallet.id,
        wallet.owner_id,
        wallet.currency,
        wallet.balance,
        wallet.overdraft_limit,
        wallet.status,
        wallet.version,
        wallet.metadata,
        rfc3339(wallet.created_at_ms),
        rfc3339(wallet.updated_at_ms),
    )


def wallet_event_body(event: WalletEvent) -> WalletEventBody:
    """Return a wallet's event in the form that its owner sees."""
    return WalletEventBody(
        type=event.type,
        version=event.version,
        occurred_at=rfc3339(event.occurred_at_ms),
        command_id=event.command_id,
        kind=event.kind,
        transaction_status=event.transaction_status,
        change=event.change,
        balance=event.balance,
        status=event.status,
        reason=event.reason,
        counterparty_id=event.counterparty_id,
        overdraft_limit=event.overdraft_limit,
    )


def entry_body(entry: Recorded, *, is_foreign: bool = False) -> EntryBody:
    """Return the public form of an entry; `is_foreign` marks the entry of another user's wallet."""
    return EntryBody(
        id=None if is_foreign else entry.id,
        transaction_id=entry.transaction_id,
        account=entry.account,
        direction=entry.direction,
        amount=entry.amount,
        currency=entry.currency,
        balance_after=None if is_foreign else entry.balance_after,
        wallet_version=None if is_foreign else entry.wallet_version,
        occurred_at=rfc3339(entry.occurred_at_ms),
        hash=None if is_foreign else entry.hash,
        effective_at=entry.effective_at,
    )


def statement_kind(line: StatementLine) -> LineKind:
    """Return the kind of a statement's line."""
    return "refund" if line.transaction_status == "failed" else line.kind


def statement_line_body(line: StatementLine) -> LineBody:
    """Return a balance change in the form that the wallet's owner sees."""
    return LineBody(
        occurred_at=rfc3339(line.occurred_at_ms),
        kind=statement_kind(line),
        transaction_id=line.transaction_id,
        counterparty_id=line.counterparty_id,
        amount=line.change,
        balance_after=line.balance,
        reference=line.reference,
        effective_at=line.effective_at,
    )


def transaction_body(transaction: Transaction) -> TransactionBody:
    """Return the public form of a transaction."""
    return TransactionBody(**_fields(transaction))


def movement_body(transaction: Transaction, wallet: Wallet | None) -> MovementBody:
    """Return a deposit or withdrawal in the form that the wallet's owner sees."""
    return MovementBody(**_fields(transaction), wallet=wallet_body(wallet) if wallet is not None else None)


def _fields(transaction: Transaction) -> dict[str, Any]:
    failure, completed_at_ms = transaction.failure, transaction.completed_at_ms
    created_at_ms = transaction.initiated.time_ms
    return {
        "id": transaction.id,
        "kind": transaction.kind,
        "status": transaction.status,
        "from_wallet_id": transaction.from_wallet_id,
        "to_wallet_id": transaction.to_wallet_id,
        "amount": transaction.amount,
        "currency": transaction.currency,
        "reference": transaction.reference,
        "metadata": transaction.metadata,
        "failure": FailureBody(failure.code, failure.detail) if failure else None,
        "created_at": rfc3339(created_at_ms) if created_at_ms else None,
        "completed_at": rfc3339(completed_at_ms) if completed_at_ms else None,
        "effective_at": transaction.effective_at,
    }
