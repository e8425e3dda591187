"""The words that these tests are written in: commands with ordinary values, and given / when / then.

    given(open_wallet(), deposit(100)).when(withdraw(30)).then(changed(...))

`given` takes the commands of the wallet's past, all of which must have been accepted.
"""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import msgspec
from msgspec import UNSET

from mercuria.domain.commands import (
    KINDS,
    CloseWallet,
    Credit,
    Decidable,
    Deposit,
    FreezeWallet,
    Movement,
    OpenWallet,
    Origin,
    Position,
    Refund,
    SetLimits,
    Transfer,
    UnfreezeWallet,
    WalletSide,
    Withdraw,
)
from mercuria.domain.events import (
    BalanceUpdated,
    CommandRejected,
    Event,
    Failure,
    Status,
    TransactionStatus,
)
from mercuria.domain.rejections import Code
from mercuria.domain.wallet import Wallet, decide, evolve

OWNER = UUID("0190b7a4-0000-7000-8000-00000000000a")
STRANGER = UUID("0190b7a4-0000-7000-8000-00000000000b")
OPERATOR = UUID("0190b7a4-0000-7000-8000-00000000000c")
WALLET = UUID("0190b7a4-0000-7000-8000-000000000001")
OTHER = UUID("0190b7a4-0000-7000-8000-000000000002")
ID = UUID("0190b7a4-0000-7000-8000-0000000000ff")

PAST_MS = 1_700_000_000_000
NOW = Position(partition=3, offset=100, time_ms=PAST_MS + 60_000)
BEGUN = Position(partition=5, offset=17, time_ms=PAST_MS + 59_000)

MAX = 2**63 - 1


IDS: dict[str, Any] = {"id": ID, "wallet_id": WALLET}


def open_wallet(**fields: Any) -> OpenWallet:
    return OpenWallet(**IDS | {"owner_id": OWNER, "currency": "EUR"} | fields)


def deposit(amount: int = 100, **fields: Any) -> Deposit:
    return Deposit(**IDS | {"amount": amount, "currency": "EUR"} | fields)


def withdraw(amount: int = 100, **fields: Any) -> Withdraw:
    return Withdraw(**IDS | {"amount": amount, "currency": "EUR"} | fields)


def transfer(amount: int = 100, **fields: Any) -> Transfer:
    return Transfer(**IDS | {"to_wallet_id": OTHER, "amount": amount, "currency": "EUR"} | fields)


def freeze(**fields: Any) -> FreezeWallet:
    return FreezeWallet(**IDS | fields)


def unfreeze(**fields: Any) -> UnfreezeWallet:
    return UnfreezeWallet(**IDS | fields)


def close(**fields: Any) -> CloseWallet:
    return CloseWallet(**IDS | fields)


def set_limits(overdraft_limit: int = 500, **fields: Any) -> SetLimits:
    return SetLimits(**IDS | {"overdraft_limit": overdraft_limit} | fields)


def credit(amount: int = 100, **fields: Any) -> Credit:
    """Return the leg by which OTHER pays WALLET."""
    usual: dict[str, Any] = {
        "origin": Origin(5, 17),
        "wallet_id": WALLET,
        "id": ID,
        "initiated": BEGUN,
        "amount": amount,
        "currency": "EUR",
        "sender": WalletSide(OTHER, STRANGER, 900, 7),
        "reference": None,
        "metadata": {},
    }
    return Credit(**usual | fields)


def refund(amount: int = 100, **fields: Any) -> Refund:
    """Return the leg by which WALLET gets back what OTHER did not take."""
    usual: dict[str, Any] = {
        "origin": Origin(5, 18),
        "wallet_id": WALLET,
        "id": ID,
        "initiated": BEGUN,
        "amount": amount,
        "currency": "EUR",
        "receiver": WalletSide(OTHER),
        "code": "wallet_frozen",
        "reference": None,
        "metadata": {},
    }
    return Refund(**usual | fields)


def a_wallet(**fields: Any) -> Wallet:
    """Return an open wallet of 1000 minor units, with `fields` changed."""
    usual: dict[str, Any] = {
        "id": WALLET,
        "owner_id": OWNER,
        "currency": "EUR",
        "balance": 1000,
        "sent": 0,
        "overdraft_limit": 0,
        "status": "open",
        "version": 4,
        "metadata": {},
        "created_at_ms": PAST_MS,
        "updated_at_ms": PAST_MS,
    }
    return Wallet(**usual | fields)


def changed(
    command: Movement | Credit | Refund,
    transaction_status: TransactionStatus,
    *,
    balance: int,
    version: int,
    from_wallet: WalletSide | None = None,
    to_wallet: WalletSide | None = None,
    status: Status = "open",
    failure: Failure | None = None,
) -> BalanceUpdated:
    """Return the event of WALLET's new balance that `command` should give."""
    return BalanceUpdated(
        offset=NOW.offset,
        transaction_id=command.id,
        initiated=getattr(command, "initiated", NOW),
        kind=KINDS[type(command)],
        transaction_status=transaction_status,
        wallet_id=WALLET,
        owner_id=OWNER,
        amount=command.amount,
        currency="EUR",
        balance=balance,
        status=status,
        version=version,
        from_wallet=from_wallet,
        to_wallet=to_wallet,
        reference=command.reference,
        metadata=command.metadata,
        failure=failure,
        effective_at=command.effective_at or UNSET,
    )


def mine(balance: int, version: int) -> WalletSide:
    """Return WALLET's side of a movement."""
    return WalletSide(WALLET, OWNER, balance, version)


@dataclass(frozen=True)
class Given:
    """A wallet with a past, or none."""

    wallet: Wallet | None

    def when(self, command: Decidable) -> "When":
        """Decide `command`."""
        event = decide(command, self.wallet, NOW)
        return When(command, event, self.wallet, evolve(self.wallet, event, NOW.time_ms))


@dataclass(frozen=True)
class When:
    """A command that was decided, and the wallet before and after it."""

    command: Decidable
    event: Event
    before: Wallet | None
    after: Wallet | None

    def then(self, event: Event) -> "When":
        """Check that exactly this has happened."""
        assert self.event == event
        return self

    def then_refused(self, code: Code) -> None:
        """Check that the command was refused, says why, and changed nothing."""
        assert isinstance(self.event, CommandRejected), self.event
        assert self.event.code == code
        assert self.event.command is not None
        assert msgspec.json.decode(self.event.command) == msgspec.json.decode(encoded(self.command))
        assert self.after is self.before


def given(*past: Decidable) -> Given:
    """Return the wallet that has accepted all commands of its past, one minute before NOW."""
    wallet: Wallet | None = None
    for offset, command in enumerate(past):
        event = decide(command, wallet, Position(NOW.partition, offset, PAST_MS))
        assert not isinstance(event, CommandRejected), event
        wallet = evolve(wallet, event, PAST_MS)
    return Given(wallet)


def encoded(value: object) -> bytes:
    """Return the bytes as they go to Kafka; unlike `==`, they tell 1 from true and one order of fields from another."""
    return msgspec.json.encode(value)
