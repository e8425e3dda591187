"""All that can be wrong with a command, for every type of command, by descending precedence."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from mercuria.domain.commands import Decidable
from mercuria.domain.rejections import Code
from mercuria.domain.wallet import Wallet

from .story import (
    MAX,
    STRANGER,
    WALLET,
    a_wallet,
    close,
    credit,
    deposit,
    freeze,
    open_wallet,
    refund,
    set_limits,
    transfer,
    unfreeze,
    withdraw,
)

Situation = tuple[Decidable, Wallet | None]
Fault = Callable[[Situation], Situation]


def command_with(**fields: Any) -> Fault:
    """Give the command fields that it should not have."""
    return lambda it: (msgspec.structs.replace(it[0], **fields), it[1])


def wallet_with(**fields: Any) -> Fault:
    """Give the wallet a state that does not allow the command."""

    def apply(situation: Situation) -> Situation:
        command, wallet = situation
        assert wallet is not None, "what is wrong with the wallet comes after whether there is one"
        return command, msgspec.structs.replace(wallet, **fields)

    return apply


def no_wallet(situation: Situation) -> Situation:
    """There is no wallet."""
    return situation[0], None


def there_is_one(situation: Situation) -> Situation:
    """There is a wallet where there should be none."""
    return situation[0], a_wallet()


@dataclass(frozen=True)
class Faults:
    """A command that would be accepted, and what can be wrong with it; the first of several counts."""

    command: Decidable
    wallet: Wallet | None
    by_precedence: list[tuple[Code, Fault]] = field(default_factory=list)


STATE: list[tuple[Code, Fault]] = [
    (Code.WALLET_CLOSED, wallet_with(status="closed")),
    (Code.WALLET_FROZEN, wallet_with(status="frozen")),
    (Code.CURRENCY_MISMATCH, wallet_with(currency="CZK")),
]
WORDING: list[tuple[Code, Fault]] = [
    (Code.AMOUNT_MUST_BE_POSITIVE, command_with(amount=0)),
    (Code.AMOUNT_MUST_BE_POSITIVE, command_with(amount=-1)),
    (Code.AMOUNT_MUST_BE_POSITIVE, command_with(amount=-(2**63))),
    (Code.AMOUNT_TOO_LARGE, command_with(amount=2**63)),
    (Code.UNKNOWN_CURRENCY, command_with(currency="eur")),
]
PLACE: list[tuple[Code, Fault]] = [
    (Code.WALLET_NOT_FOUND, no_wallet),
    (Code.NOT_WALLET_OWNER, command_with(actor_id=STRANGER)),
    (Code.NOT_WALLET_OWNER, command_with(actor_id=STRANGER, actor_role="operator")),
]
OPERATORS_ONLY: list[tuple[Code, Fault]] = [
    (Code.OPERATOR_REQUIRED, command_with(actor_id=STRANGER)),
    (Code.OPERATOR_REQUIRED, command_with(actor_id=a_wallet().owner_id)),
]

FAULTS: dict[str, Faults] = {
    "open_wallet": Faults(
        open_wallet(),
        None,
        [
            (Code.UNKNOWN_CURRENCY, command_with(currency="XAU")),
            (Code.OVERDRAFT_LIMIT_OUT_OF_RANGE, command_with(overdraft_limit=-1)),
            (Code.OVERDRAFT_LIMIT_OUT_OF_RANGE, command_with(overdraft_limit=2**63)),
            (Code.OPERATOR_REQUIRED, command_with(overdraft_limit=1, actor_id=STRANGER, actor_role="user")),
            (Code.OPERATOR_REQUIRED, command_with(actor_id=STRANGER)),
            (Code.WALLET_ALREADY_EXISTS, there_is_one),
        ],
    ),
    "deposit": Faults(
        deposit(),
        a_wallet(),
        [*WORDING, *PLACE, *STATE, (Code.BALANCE_WOULD_OVERFLOW, wallet_with(balance=MAX - 99))],
    ),
    "withdraw": Faults(
        withdraw(),
        a_wallet(),
        [*WORDING, *PLACE, *STATE, (Code.INSUFFICIENT_FUNDS, wallet_with(balance=99))],
    ),
    "transfer": Faults(
        transfer(),
        a_wallet(),
        [
            *WORDING,
            (Code.SOURCE_AND_TARGET_MUST_DIFFER, command_with(to_wallet_id=WALLET)),
            *PLACE,
            *STATE,
            (Code.INSUFFICIENT_FUNDS, wallet_with(balance=99)),
            (Code.BALANCE_WOULD_OVERFLOW, wallet_with(sent=MAX - 99)),
        ],
    ),
    "credit": Faults(
        credit(),
        a_wallet(),
        [
            (Code.WALLET_NOT_FOUND, no_wallet),
            *STATE,
            (Code.BALANCE_WOULD_OVERFLOW, wallet_with(balance=0, sent=MAX - 99)),
        ],
    ),
    "refund": Faults(refund(), a_wallet(sent=100)),
    "freeze_wallet": Faults(
        freeze(),
        a_wallet(),
        [
            *OPERATORS_ONLY,
            (Code.WALLET_NOT_FOUND, no_wallet),
            (Code.WALLET_CLOSED, wallet_with(status="closed")),
            (Code.WALLET_FROZEN, wallet_with(status="frozen")),
        ],
    ),
    "unfreeze_wallet": Faults(
        unfreeze(),
        a_wallet(status="frozen"),
        [
            *OPERATORS_ONLY,
            (Code.WALLET_NOT_FOUND, no_wallet),
            (Code.WALLET_CLOSED, wallet_with(status="closed")),
            (Code.WALLET_NOT_FROZEN, wallet_with(status="open")),
        ],
    ),
    "set_limits": Faults(
        set_limits(),
        a_wallet(),
        [
            (Code.OVERDRAFT_LIMIT_OUT_OF_RANGE, command_with(overdraft_limit=-1)),
            (Code.OVERDRAFT_LIMIT_OUT_OF_RANGE, command_with(overdraft_limit=2**63)),
            *OPERATORS_ONLY,
            (Code.WALLET_NOT_FOUND, no_wallet),
            (Code.WALLET_CLOSED, wallet_with(status="closed")),
        ],
    ),
    "close_wallet": Faults(
        close(),
        a_wallet(balance=0, overdraft_limit=50),
        [
            *PLACE,
            (Code.WALLET_CLOSED, wallet_with(status="closed")),
            (Code.WALLET_FROZEN, wallet_with(status="frozen")),
            (Code.WALLET_NOT_EMPTY, wallet_with(balance=1)),
            (Code.WALLET_NOT_EMPTY, wallet_with(balance=-1)),
        ],
    ),
}


def single_faults() -> list[tuple[str, Code, Situation]]:
    """Return every command with one thing wrong."""
    return [
        (kind, code, fault((faults.command, faults.wallet)))
        for kind, faults in FAULTS.items()
        for code, fault in faults.by_precedence
    ]


def piled_faults() -> list[tuple[str, Code, Situation]]:
    """Return every command with one thing wrong, and whatever weighs less as well, one by one and all at once."""
    return [
        (f"{kind}: {code} before {', '.join(later for later, _ in pile) or 'nothing'}", code, situation)
        for kind, faults in FAULTS.items()
        for place, (code, _) in enumerate(faults.by_precedence)
        for pile in _piles(faults.by_precedence[place + 1 :])
        for situation in [_apply(faults, [faults.by_precedence[place], *pile])]
    ]


def _piles(later: list[tuple[Code, Fault]]) -> list[list[tuple[Code, Fault]]]:
    return [[fault] for fault in later] + [later]


def _apply(faults: Faults, pile: list[tuple[Code, Fault]]) -> Situation:
    """Apply the weightiest last, so that nothing undoes it."""
    situation: Situation = (faults.command, faults.wallet)
    for _, fault in reversed(pile):
        situation = fault(situation)
    return situation


def acceptable() -> dict[str, Situation]:
    """Return one command of each type that is accepted."""
    return {kind: (faults.command, faults.wallet) for kind, faults in FAULTS.items()}
