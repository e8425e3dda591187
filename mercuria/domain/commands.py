"""Commands: requests to a wallet. The wallet that a command names decides it.

The JSON form of a command is its struct here, field by field, with `type` as the tag; unknown fields are
refused. Legs are the commands that wallets send to each other. They carry their origin, and legs of clients
are refused.
"""

from typing import Annotated, Literal
from uuid import UUID

from msgspec import UNSET, Meta, Raw, Struct, UnsetType, structs

from mercuria.domain.kinds import ACCOUNTS, Kind

# PostgreSQL, which stores all texts, cannot hold the character NUL.
_NO_NUL = r"^[^\x00]*$"
Text = Annotated[str, Meta(max_length=255, pattern=_NO_NUL)]
CurrencyCode = Annotated[str, Meta(min_length=3, max_length=3, pattern=_NO_NUL)]
Integer = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
"""An integer of 64 bits. The wallet decides whether it is a valid amount."""

EffectiveAt = Annotated[
    str,
    Meta(
        max_length=64,
        extra_json_schema={"anyOf": [{"format": "date-time"}, {"format": "date"}]},
        description="When it counts in reports, where that is another time: RFC 3339, with its offset; a date alone is"
        " its midnight in UTC.",
        examples=["2021-03-04", "2021-03-04T12:00:00+01:00"],
    ),
]
"""An effective date, as clients write it.

Reading a command converts it to canonical form (`domain.effective`).
"""

Metadata = Annotated[
    dict[
        Annotated[str, Meta(min_length=1, max_length=40, pattern=_NO_NUL)],
        Annotated[str, Meta(max_length=500, pattern=_NO_NUL)],
    ],
    Meta(max_length=50),
]
"""A client's own data: up to 50 texts of up to 500 characters, under names of up to 40 characters."""

Role = Literal["user", "operator"]


class Command(
    Struct,
    frozen=True,
    gc=False,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="type",
    omit_defaults=True,
):
    """What all commands have.

    `id` is the command's identity: sent twice, it counts once. `actor_id` says on whose behalf it is sent and
    `actor_role` what that person may do; without an actor the producer is trusted.

    Receipts keep a hash of the fields that are not at their default: a new field needs a default.
    """

    id: UUID
    wallet_id: UUID
    actor_id: UUID | None = None
    actor_role: Role = "user"


class OpenWallet(Command, frozen=True, gc=False, kw_only=True, tag="open_wallet"):
    """Open the wallet `wallet_id`, empty."""

    owner_id: UUID
    currency: CurrencyCode
    overdraft_limit: Integer = 0
    metadata: Metadata = {}


class Deposit(Command, frozen=True, gc=False, kw_only=True, tag="deposit"):
    """Bring `amount` minor units in from outside.

    What moves money moves it in the wallet's own currency; whoever names another one is refused. `effective_at` is for
    reports, may lie in the past or in the future, and decides nothing.
    """

    amount: Integer
    currency: CurrencyCode | None = None
    reference: Text | None = None
    metadata: Metadata = {}
    effective_at: EffectiveAt | None = None


class Withdraw(Command, frozen=True, gc=False, kw_only=True, tag="withdraw"):
    """Take `amount` minor units out."""

    amount: Integer
    currency: CurrencyCode | None = None
    reference: Text | None = None
    metadata: Metadata = {}
    effective_at: EffectiveAt | None = None


class Transfer(Command, frozen=True, gc=False, kw_only=True, tag="transfer"):
    """Move `amount` minor units to the wallet `to_wallet_id`."""

    to_wallet_id: UUID
    amount: Integer
    currency: CurrencyCode | None = None
    reference: Text | None = None
    metadata: Metadata = {}
    effective_at: EffectiveAt | None = None


class FreezeWallet(Command, frozen=True, gc=False, kw_only=True, tag="freeze_wallet"):
    """Let no money in or out until the wallet is unfrozen."""

    reason: Text | None = None


class UnfreezeWallet(Command, frozen=True, gc=False, kw_only=True, tag="unfreeze_wallet"):
    """Let money move again."""

    reason: Text | None = None


class CloseWallet(Command, frozen=True, gc=False, kw_only=True, tag="close_wallet"):
    """Close the wallet, which must be empty."""

    reason: Text | None = None


class SetLimits(Command, frozen=True, gc=False, kw_only=True, tag="set_limits"):
    """Change how far below zero the balance may go, in minor units.

    The limit counts for what comes. A balance that is below it already stays: money may come in, and none may leave
    until the balance is above the limit again.
    """

    overdraft_limit: Integer
    reason: Text | None = None


class Origin(Struct, frozen=True, gc=False, array_like=True):
    """Which record caused a leg: `[partition, offset]` on the command topic."""

    partition: Integer
    offset: Integer


class Position(Struct, frozen=True, gc=False):
    """Where and when a command was decided: its record on the command topic. `time_ms` is the broker's, in UTC."""

    partition: Integer
    offset: Integer
    time_ms: Integer


class WalletSide(Struct, frozen=True, gc=False):
    """One wallet of a movement, as it was right after its part; what is not known yet is None."""

    wallet_id: UUID
    owner_id: UUID | None = None
    balance: Integer | None = None
    version: Integer | None = None


class Leg(Struct, frozen=True, gc=False, kw_only=True, forbid_unknown_fields=True, tag_field="type"):
    """What all legs have. `mac` proves that Mercuria wrote the leg (`kafka.sealing`).

    In those that move money, `id` is the transaction's, and `initiated` is where its command was decided.
    """

    origin: Origin
    wallet_id: UUID
    mac: str | UnsetType = UNSET


class Credit(Leg, frozen=True, gc=False, kw_only=True, tag="credit"):
    """The second half of a transfer: the sender has paid, `wallet_id` receives."""

    id: UUID
    initiated: Position
    amount: Integer
    currency: str
    sender: WalletSide
    reference: str | None
    metadata: dict[str, str]
    effective_at: str | UnsetType = UNSET


class Refund(Leg, frozen=True, gc=False, kw_only=True, tag="refund"):
    """The way back: the receiver has refused the credit for the reason `code`, and `wallet_id` gets its money back."""

    id: UUID
    initiated: Position
    amount: Integer
    currency: str
    receiver: WalletSide
    code: str
    reference: str | None
    metadata: dict[str, str]
    effective_at: str | UnsetType = UNSET


class Forwarded(Leg, frozen=True, gc=False, kw_only=True, tag="forwarded"):
    """A client's command that came in another partition than its wallet's, on its way to the right one."""

    command: Raw


Movement = Deposit | Withdraw | Transfer
StatusCommand = FreezeWallet | UnfreezeWallet | CloseWallet
ClientCommand = (
    OpenWallet | Deposit | Withdraw | Transfer | FreezeWallet | UnfreezeWallet | CloseWallet | SetLimits
)
Decidable = ClientCommand | Credit | Refund
AnyCommand = ClientCommand | Credit | Refund | Forwarded


def in_order(command: ClientCommand) -> ClientCommand:
    """Return a command with the names of its metadata in alphabetical order.

    The order of names in an object has no meaning, so two commands that differ only in it are equal.
    """
    metadata: dict[str, str] | None = getattr(command, "metadata", None)
    if not metadata or len(metadata) == 1:
        return command
    names = list(metadata)
    ordered = sorted(names)
    if names == ordered:
        return command
    return structs.replace(command, metadata={name: metadata[name] for name in ordered})


KINDS: dict[type, Kind] = {
    Deposit: "deposit",
    Withdraw: "withdrawal",
    Transfer: "transfer",
    Credit: "transfer",
    Refund: "transfer",
}
"""By type of command: the kind of transaction that it is part of."""


def comes_in(kind: type) -> bool:
    """Return whether commands of a type bring money in from outside."""
    return ACCOUNTS[KINDS[kind]].debit is not None
