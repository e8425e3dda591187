"""The wallet: its state, the effect of a command on it, and the reasons to refuse a command.

    event = decide(command, wallet, position)      # what happens; changes nothing
    wallet = evolve(wallet, event)                 # the state after it

A decision is an `Outcome`, four numbers. The event can be built again at any time from the outcome and the
command. A command that is sent twice therefore gets its first answer, byte for byte.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, cast
from uuid import UUID

import msgspec
from msgspec import UNSET, Raw, Struct
from msgspec.structs import replace

from mercuria.domain.commands import (
    KINDS,
    CloseWallet,
    Credit,
    Decidable,
    Deposit,
    FreezeWallet,
    Movement,
    OpenWallet,
    Position,
    Refund,
    SetLimits,
    StatusCommand,
    Transfer,
    UnfreezeWallet,
    WalletSide,
    Withdraw,
    comes_in,
)
from mercuria.domain.events import (
    Accepted,
    BalanceUpdated,
    CommandRejected,
    Event,
    Failure,
    LimitsChanged,
    Status,
    StatusChanged,
    WalletCreated,
)
from mercuria.domain.money import MAX_AMOUNT, is_currency
from mercuria.domain.rejections import DETAILS, Code

MAX_EARLIER_LIMITS = 32
"""How many of its former overdraft limits a wallet stores."""

_encode_json = msgspec.json.Encoder(order="deterministic").encode


class Wallet(Struct, frozen=True, gc=False, array_like=True):
    """One wallet, as the tables store it: new fields go to the end, with a default.

    `sent` is the sum of all transfers that left and did not come back. Refunds are always part of that sum,
    so incoming money is refused if `balance + sent` would exceed 64 bits, and a refund always fits. Over its
    lifetime, a wallet can therefore send at most 2**63 - 1 minor units.

    `earlier_limits` are its previous overdraft limits, the oldest first, each with the version that ended it.
    There are at most `MAX_EARLIER_LIMITS`. A repeated command is answered with the limit of its time.
    """

    id: UUID
    owner_id: UUID
    currency: str
    balance: int
    sent: int
    overdraft_limit: int
    status: Status
    version: int
    metadata: dict[str, str]
    created_at_ms: int
    updated_at_ms: int
    earlier_limits: tuple[tuple[int, int], ...] = ()


class Outcome(Struct, frozen=True, gc=False):
    """A decision: the wallet's new balance, version and status, or the code of the refusal."""

    balance: int = 0
    version: int = 0
    status: Status = "open"
    code: Code | None = None


def decide(command: Decidable, wallet: Wallet | None, position: Position) -> Event:
    """Return the effect of `command` on `wallet`.

    `wallet` is the wallet `command.wallet_id`, or None if there is no such wallet.
    """
    return build_event(command, wallet, evaluate(command, wallet), position)


def evaluate(command: Decidable, wallet: Wallet | None) -> Outcome:
    """Return the outcome of `command`; the first reason to refuse counts."""
    return _RULES[type(command)].evaluate(command, wallet)


def build_event(command: Decidable, wallet: Wallet | None, outcome: Outcome, position: Position) -> Event:
    """Return the event of an outcome.

    Only the owner and currency of `wallet` are used, which never change.
    """
    if outcome.code is not None:
        return _rejection_event(command, outcome.code, position)
    return _RULES[type(command)].build(command, wallet, outcome, position)


def evolve(wallet: Wallet | None, event: Event, time_ms: int) -> Wallet | None:
    """Return the wallet after `event`, which happened at `time_ms`."""
    if type(event) is BalanceUpdated:
        assert wallet is not None
        assert event.version == wallet.version + 1, "an event happens once, and in its turn"
        sent = wallet.sent
        if event.transaction_status == "pending":
            sent += event.amount
        elif event.transaction_status == "failed":
            sent -= event.amount
        return _with(wallet, event.balance, sent, event.status, event.version, time_ms)
    if type(event) is StatusChanged:
        assert wallet is not None
        return _with(wallet, wallet.balance, wallet.sent, event.status, event.version, time_ms)
    if type(event) is LimitsChanged:
        assert wallet is not None
        changed = _with(wallet, wallet.balance, wallet.sent, event.status, event.version, time_ms)
        earlier = (*wallet.earlier_limits, (event.version, wallet.overdraft_limit))[-MAX_EARLIER_LIMITS:]
        return replace(changed, overdraft_limit=event.overdraft_limit, earlier_limits=earlier)
    if type(event) is WalletCreated:
        return Wallet(
            event.wallet_id,
            event.owner_id,
            event.currency,
            event.balance,
            0,
            event.overdraft_limit,
            event.status,
            event.version,
            event.metadata,
            time_ms,
            time_ms,
        )
    return wallet


def as_of(wallet: Wallet, event: Event, time_ms: int) -> Wallet:
    """Return the wallet as it was right after an accepted past `event`, which happened at `time_ms`.

    Fields that the event does not contain keep their value: `sent` is not part of an answer.
    """
    if type(event) is CommandRejected:
        return wallet
    accepted = cast(Accepted, event)
    before = _with(wallet, accepted.balance, wallet.sent, accepted.status, accepted.version, time_ms)
    if not wallet.earlier_limits:
        return before
    if type(event) is WalletCreated or type(event) is LimitsChanged:
        return replace(before, overdraft_limit=event.overdraft_limit)
    return replace(before, overdraft_limit=_limit_at(wallet, accepted.version))


def _limit_at(wallet: Wallet, version: int) -> int:
    """Return the overdraft limit that a wallet had at a version."""
    later = (limit for ended_by, limit in wallet.earlier_limits if ended_by > version)
    return next(later, wallet.overdraft_limit)


# Refusals, in their order of precedence: the content of the command, the existence of the wallet, the permission of
# the actor, the state of the wallet, and its balance.


def _evaluate_open(command: OpenWallet, wallet: Wallet | None) -> Outcome:
    code = _why_not_open(command, wallet)
    return Outcome(code=code) if code else Outcome(0, 1)


def _why_not_open(command: OpenWallet, wallet: Wallet | None) -> Code | None:
    if not is_currency(command.currency):
        return Code.UNKNOWN_CURRENCY
    if not 0 <= command.overdraft_limit <= MAX_AMOUNT:
        return Code.OVERDRAFT_LIMIT_OUT_OF_RANGE
    is_user = command.actor_id is not None and command.actor_role != "operator"
    if is_user and (command.overdraft_limit > 0 or command.actor_id != command.owner_id):
        return Code.OPERATOR_REQUIRED
    if wallet is not None:
        return Code.WALLET_ALREADY_EXISTS
    return None


def _evaluate_deposit(command: Deposit, wallet: Wallet | None) -> Outcome:
    code = _why_not_move(command, wallet)
    if code is not None:
        return Outcome(code=code)
    assert wallet is not None
    if wallet.balance + wallet.sent + command.amount > MAX_AMOUNT:
        return Outcome(code=Code.BALANCE_WOULD_OVERFLOW)
    return Outcome(wallet.balance + command.amount, wallet.version + 1)


def _evaluate_withdrawal(command: Withdraw | Transfer, wallet: Wallet | None) -> Outcome:
    code = _why_not_move(command, wallet)
    if code is not None:
        return Outcome(code=code)
    assert wallet is not None
    if wallet.balance - command.amount < -wallet.overdraft_limit:
        return Outcome(code=Code.INSUFFICIENT_FUNDS)
    return Outcome(wallet.balance - command.amount, wallet.version + 1)


def _evaluate_transfer(command: Transfer, wallet: Wallet | None) -> Outcome:
    outcome = _evaluate_withdrawal(command, wallet)
    if outcome.code is None:
        assert wallet is not None
        # With an overdraft, a wallet can send more than it ever received; money that may come back must still fit.
        if wallet.sent + command.amount > MAX_AMOUNT:
            return Outcome(code=Code.BALANCE_WOULD_OVERFLOW)
    return outcome


def _why_not_move(command: Movement, wallet: Wallet | None) -> Code | None:
    if command.amount <= 0:
        return Code.AMOUNT_MUST_BE_POSITIVE
    if command.amount > MAX_AMOUNT:
        return Code.AMOUNT_TOO_LARGE
    if command.currency not in (None, wallet and wallet.currency) and not is_currency(command.currency):
        return Code.UNKNOWN_CURRENCY
    if type(command) is Transfer and command.to_wallet_id == command.wallet_id:
        return Code.SOURCE_AND_TARGET_MUST_DIFFER
    if wallet is None:
        return Code.WALLET_NOT_FOUND
    if command.actor_id is not None and command.actor_id != wallet.owner_id:
        return Code.NOT_WALLET_OWNER
    return _why_not_receive(command.currency, wallet)


def _why_not_receive(currency: str | None, wallet: Wallet) -> Code | None:
    if wallet.status == "closed":
        return Code.WALLET_CLOSED
    if wallet.status == "frozen":
        return Code.WALLET_FROZEN
    if currency not in (None, wallet.currency):
        return Code.CURRENCY_MISMATCH
    return None


def _evaluate_credit(command: Credit, wallet: Wallet | None) -> Outcome:
    if wallet is None:
        return Outcome(code=Code.WALLET_NOT_FOUND)
    code = _why_not_receive(command.currency, wallet)
    if code is not None:
        return Outcome(code=code)
    if wallet.balance + wallet.sent + command.amount > MAX_AMOUNT:
        return Outcome(code=Code.BALANCE_WOULD_OVERFLOW)
    return Outcome(wallet.balance + command.amount, wallet.version + 1)


def _evaluate_refund(command: Refund, wallet: Wallet | None) -> Outcome:
    """Accept a refund: it is never refused, because money that comes back must go to a wallet.

    A frozen wallet gets the money and stays frozen. A closed wallet is opened again, so that its owner can
    withdraw.
    """
    assert wallet is not None, "a wallet that has paid exists for ever"
    assert command.amount <= wallet.sent, "a refund is part of what was sent"
    status: Status = "open" if wallet.status == "closed" else wallet.status
    return Outcome(wallet.balance + command.amount, wallet.version + 1, status)


def _evaluate_status(command: StatusCommand, wallet: Wallet | None) -> Outcome:
    code = _why_not_change(command, wallet)
    if code is not None:
        return Outcome(code=code)
    assert wallet is not None
    return Outcome(wallet.balance, wallet.version + 1, _NEXT_STATUS[type(command)])


def _why_not_change(command: StatusCommand, wallet: Wallet | None) -> Code | None:
    closing = type(command) is CloseWallet
    if not closing and command.actor_id is not None and command.actor_role != "operator":
        return Code.OPERATOR_REQUIRED
    if wallet is None:
        return Code.WALLET_NOT_FOUND
    if closing and command.actor_id not in (None, wallet.owner_id):
        return Code.NOT_WALLET_OWNER
    if wallet.status == "closed":
        return Code.WALLET_CLOSED
    if type(command) is UnfreezeWallet:
        return None if wallet.status == "frozen" else Code.WALLET_NOT_FROZEN
    if wallet.status == "frozen":
        return Code.WALLET_FROZEN
    if closing and wallet.balance != 0:
        return Code.WALLET_NOT_EMPTY
    return None


def _evaluate_limits(command: SetLimits, wallet: Wallet | None) -> Outcome:
    code = _why_not_limit(command, wallet)
    if code is not None:
        return Outcome(code=code)
    assert wallet is not None
    return Outcome(wallet.balance, wallet.version + 1, wallet.status)


def _why_not_limit(command: SetLimits, wallet: Wallet | None) -> Code | None:
    if not 0 <= command.overdraft_limit <= MAX_AMOUNT:
        return Code.OVERDRAFT_LIMIT_OUT_OF_RANGE
    if command.actor_id is not None and command.actor_role != "operator":
        return Code.OPERATOR_REQUIRED
    if wallet is None:
        return Code.WALLET_NOT_FOUND
    if wallet.status == "closed":
        return Code.WALLET_CLOSED
    return None


# Events of outcomes.


def _created_event(
    command: OpenWallet, _wallet: Wallet | None, outcome: Outcome, at: Position
) -> WalletCreated:
    return WalletCreated(
        offset=at.offset,
        command_id=command.id,
        wallet_id=command.wallet_id,
        owner_id=command.owner_id,
        currency=command.currency,
        overdraft_limit=command.overdraft_limit,
        balance=outcome.balance,
        status=outcome.status,
        version=outcome.version,
        metadata=command.metadata,
    )


def _status_event(command: StatusCommand, wallet: Wallet, outcome: Outcome, at: Position) -> StatusChanged:
    return StatusChanged(
        offset=at.offset,
        command_id=command.id,
        wallet_id=wallet.id,
        owner_id=wallet.owner_id,
        status=outcome.status,
        balance=outcome.balance,
        version=outcome.version,
        reason=command.reason,
    )


def _limits_event(command: SetLimits, wallet: Wallet, outcome: Outcome, at: Position) -> LimitsChanged:
    return LimitsChanged(
        offset=at.offset,
        command_id=command.id,
        wallet_id=wallet.id,
        owner_id=wallet.owner_id,
        overdraft_limit=command.overdraft_limit,
        balance=outcome.balance,
        status=outcome.status,
        version=outcome.version,
        reason=command.reason,
    )


def _balance_event(
    command: Movement | Credit | Refund, wallet: Wallet, outcome: Outcome, at: Position
) -> BalanceUpdated:
    side = WalletSide(wallet.id, wallet.owner_id, outcome.balance, outcome.version)
    initiated, failure = at, None
    kind = type(command)
    sender: WalletSide | None
    receiver: WalletSide | None
    if kind is Transfer:
        status, sender, receiver = "pending", side, WalletSide(cast(Transfer, command).to_wallet_id)
    elif kind is Credit:
        credit = cast(Credit, command)
        initiated, status, sender, receiver = credit.initiated, "completed", credit.sender, side
    elif kind is Refund:
        refund = cast(Refund, command)
        initiated, status, sender, receiver = refund.initiated, "failed", side, refund.receiver
        failure = Failure(refund.code, DETAILS[Code(refund.code)])
    elif comes_in(kind):
        status, sender, receiver = "completed", None, side
    else:
        status, sender, receiver = "completed", side, None
    return BalanceUpdated(
        offset=at.offset,
        transaction_id=command.id,
        initiated=initiated,
        kind=KINDS[kind],
        transaction_status=status,  # type: ignore[arg-type]  # mypy widens the literals of the tuples above
        wallet_id=wallet.id,
        owner_id=wallet.owner_id,
        amount=command.amount,
        currency=wallet.currency,
        balance=outcome.balance,
        status=outcome.status,
        version=outcome.version,
        from_wallet=sender,
        to_wallet=receiver,
        reference=command.reference,
        metadata=command.metadata,
        failure=failure,
        effective_at=command.effective_at or UNSET,
    )


def _rejection_event(command: Decidable, code: Code, at: Position) -> CommandRejected:
    return CommandRejected(
        offset=at.offset,
        code=code,
        detail=DETAILS[code],
        command_id=command.id,
        command_type=type(command).__struct_config__.tag,  # type: ignore[arg-type]  # ours are all texts
        wallet_id=command.wallet_id,
        command=Raw(_encode_json(command)),
    )


def _with(wallet: Wallet, balance: int, sent: int, status: Status, version: int, time_ms: int) -> Wallet:
    # A struct's constructor is several times faster than `msgspec.structs.replace`, and this is the hot path.
    return Wallet(
        wallet.id,
        wallet.owner_id,
        wallet.currency,
        balance,
        sent,
        wallet.overdraft_limit,
        status,
        version,
        wallet.metadata,
        wallet.created_at_ms,
        time_ms,
        wallet.earlier_limits,
    )


_NEXT_STATUS: dict[type, Status] = {FreezeWallet: "frozen", UnfreezeWallet: "open", CloseWallet: "closed"}


class _Rule(NamedTuple):
    """How commands of one type are decided, and the event that they give where they are not refused."""

    evaluate: Callable[[Any, Wallet | None], Outcome]
    build: Callable[[Any, Any, Outcome, Position], Event]


_RULES: dict[type, _Rule] = {
    OpenWallet: _Rule(_evaluate_open, _created_event),
    Deposit: _Rule(_evaluate_deposit, _balance_event),
    Withdraw: _Rule(_evaluate_withdrawal, _balance_event),
    Transfer: _Rule(_evaluate_transfer, _balance_event),
    Credit: _Rule(_evaluate_credit, _balance_event),
    Refund: _Rule(_evaluate_refund, _balance_event),
    FreezeWallet: _Rule(_evaluate_status, _status_event),
    UnfreezeWallet: _Rule(_evaluate_status, _status_event),
    CloseWallet: _Rule(_evaluate_status, _status_event),
    SetLimits: _Rule(_evaluate_limits, _limits_event),
}
