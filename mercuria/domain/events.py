"""Events: the decisions of wallets. They are facts, and never change.

Every command gives exactly one event, whose `offset` is that of its record on the command topic. A duplicate
command gives the same event again, byte for byte. An accepted event carries the wallet's new version, which
each accepted event increases by one.
"""

from typing import Literal
from uuid import UUID

from msgspec import UNSET, Raw, Struct, UnsetType

from mercuria.domain.commands import Position, WalletSide
from mercuria.domain.kinds import Kind
from mercuria.domain.rejections import Code

NO_COMMAND = Raw(b"null")
"""JSON's null as `Raw`; in a union with None, msgspec would read only None."""

Status = Literal["open", "frozen", "closed"]
TransactionStatus = Literal["pending", "completed", "failed"]


class Failure(Struct, frozen=True, gc=False):
    """Why something did not happen."""

    code: str
    detail: str


class WalletCreated(Struct, frozen=True, gc=False, kw_only=True):
    """A wallet was opened."""

    offset: int
    command_id: UUID
    wallet_id: UUID
    owner_id: UUID
    currency: str
    overdraft_limit: int
    balance: int
    status: Status
    version: int
    metadata: dict[str, str]


class BalanceUpdated(Struct, frozen=True, gc=False, kw_only=True):
    """The balance of `wallet_id` has changed.

    `transaction_status` is the whole transaction's after this event: the debit of a transfer leaves it `pending`, the
    credit makes it `completed`, a refund `failed`. The last event of a transaction carries all of it, both wallets
    included. `initiated` says which record began the transaction, and when: the one identity that nobody else can have.
    `effective_at` is what its command said, in RFC 3339 and UTC with milliseconds, and missing where it said nothing.
    """

    offset: int
    transaction_id: UUID
    initiated: Position
    kind: Kind
    transaction_status: TransactionStatus
    wallet_id: UUID
    owner_id: UUID
    amount: int
    currency: str
    balance: int
    status: Status
    version: int
    from_wallet: WalletSide | None
    to_wallet: WalletSide | None
    reference: str | None
    metadata: dict[str, str]
    failure: Failure | None = None
    effective_at: str | UnsetType = UNSET


class StatusChanged(Struct, frozen=True, gc=False, kw_only=True):
    """The wallet was frozen, unfrozen or closed."""

    offset: int
    command_id: UUID
    wallet_id: UUID
    owner_id: UUID
    status: Status
    balance: int
    version: int
    reason: str | None


class LimitsChanged(Struct, frozen=True, gc=False, kw_only=True):
    """An operator has changed how far below zero the balance may go, in minor units. The balance may be below it."""

    offset: int
    command_id: UUID
    wallet_id: UUID
    owner_id: UUID
    overdraft_limit: int
    balance: int
    status: Status
    version: int
    reason: str | None


class CommandRejected(Struct, frozen=True, gc=False, kw_only=True):
    """A command had no effect.

    What could be read of it is in the fields that are not None; `command` is the whole of it where a wallet
    decided it, and else null. A credit that was refused is answered by a refund, so its transaction is still `pending`.
    """

    offset: int
    code: Code
    detail: str
    command_id: UUID | None = None
    command_type: str | None = None
    wallet_id: UUID | None = None
    command: Raw = NO_COMMAND


Accepted = WalletCreated | BalanceUpdated | StatusChanged | LimitsChanged
Event = WalletCreated | BalanceUpdated | StatusChanged | LimitsChanged | CommandRejected

TYPES: dict[type, str] = {
    WalletCreated: "wallet.created",
    BalanceUpdated: "wallet.balance_updated",
    StatusChanged: "wallet.status_changed",
    LimitsChanged: "wallet.limits_changed",
    CommandRejected: "wallet.command_rejected",
}
"""The type of each event in its CloudEvents envelope."""
