"""What a load sends, and under which ids.

All ids are derived from the currency, the account and the transaction_id, so that what was sent before is recognised.
"""

from typing import NamedTuple
from uuid import UUID, uuid5

from mercuria.cli.load.statement import Operation, moment_of
from mercuria.domain.commands import Deposit, OpenWallet, SetLimits, Withdraw
from mercuria.domain.effective import text_of

NAMESPACE = UUID("6f1c6d2e-3c0a-5d0b-9d0e-5b8b7a4f2c11")
"""Where all ids of loaded owners, wallets and commands come from. With another one, everything would load again."""

_OWN = "\0"
"""Begins the names of what is no row: no transaction_id can have it."""


class Attempt(NamedTuple):
    """One sending of an operation: a refused one is sent again under another id.

    `place` is the operation's among all of the file. `is_old_form`: as versions sent it that knew no effective dates.
    """

    operation: Operation
    place: int
    number: int = 0
    is_old_form: bool = False


class Terms(NamedTuple):
    """On what terms wallets are opened; the limit in minor units, None where the person has not given one."""

    currency: str
    overdraft_limit: int | None

    def wallet_id(self, account: str) -> UUID:
        """Return the id of an account's wallet."""
        return uuid5(owner_id(account), self.currency)

    def opening(self, account: str) -> OpenWallet:
        """Return the command that opens an account's wallet; its id is the wallet's."""
        wallet_id = self.wallet_id(account)
        return OpenWallet(
            id=wallet_id,
            wallet_id=wallet_id,
            owner_id=owner_id(account),
            currency=self.currency,
            overdraft_limit=self.overdraft_limit or 0,
            metadata={"account": account},
        )

    def limit(self, account: str) -> SetLimits:
        """Return the command that gives an account's wallet the limit of these terms."""
        assert self.overdraft_limit is not None
        wallet_id = self.wallet_id(account)
        return SetLimits(
            id=uuid5(wallet_id, f"{_OWN}overdraft limit {self.overdraft_limit}"),
            wallet_id=wallet_id,
            overdraft_limit=self.overdraft_limit,
            reason="mercuria load",
        )

    def command(self, attempt: Attempt, wallet_id: UUID) -> Deposit | Withdraw:
        """Return the command that does an operation."""
        operation = attempt.operation
        kind = Deposit if operation.kind == "deposit" else Withdraw
        metadata = {"date": operation.date, "note": operation.note}
        is_dated = bool(operation.date) and not attempt.is_old_form
        return kind(
            id=_command_id(attempt, wallet_id),
            wallet_id=wallet_id,
            amount=operation.amount,
            currency=self.currency,
            reference=operation.transaction_id,
            metadata={name: text for name, text in metadata.items() if text},
            effective_at=text_of(moment_of(operation.date)) if is_dated else None,
        )


def owner_id(account: str) -> UUID:
    """Return the id of an account's owner, who has one wallet for each currency."""
    return uuid5(NAMESPACE, account)


def _command_id(attempt: Attempt, wallet_id: UUID) -> UUID:
    operation = attempt.operation
    name = _OWN + operation.own if operation.own else operation.transaction_id
    first = uuid5(wallet_id, name)
    return uuid5(first, f"{_OWN}attempt {attempt.number}") if attempt.number else first
