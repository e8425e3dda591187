"""The commands that a load sends, and their ids.

All ids are derived from the currency, the account and the transaction_id, so that commands that were sent
before are recognised.
"""

from typing import NamedTuple
from uuid import UUID, uuid5

from mercuria.cli.load.statement import Operation, moment_of
from mercuria.domain.commands import Deposit, OpenWallet, SetLimits, Withdraw
from mercuria.domain.effective import text_of

NAMESPACE = UUID("6f1c6d2e-3c0a-5d0b-9d0e-5b8b7a4f2c11")
"""The namespace of all ids of loaded owners, wallets and commands.

With another one, all files would load again.
"""

_OWN = "\0"
"""The prefix of names that do not come from a row: no transaction_id can have it."""


class Attempt(NamedTuple):
    """One attempt at an operation: a refused one is sent again under another id.

    `place` is the operation's position in the file. `is_old_form` selects the form of versions without
    effective dates.
    """

    operation: Operation
    place: int
    number: int = 0
    is_old_form: bool = False


class Terms(NamedTuple):
    """The terms on which wallets are opened; the limit is in minor units, or None if none was given."""

    currency: str
    overdraft_limit: int | None

    def wallet_id(self, account: str) -> UUID:
        """Return the id of an account's wallet."""
        return uuid5(owner_id(account), self.currency)

    def opening(self, account: str) -> OpenWallet:
        """Return the command that opens an account's wallet; the id of the command is the wallet's id."""
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
        """Return the command that sets the limit of these terms for an account's wallet."""
        assert self.overdraft_limit is not None
        wallet_id = self.wallet_id(account)
        return SetLimits(
            id=uuid5(wallet_id, f"{_OWN}overdraft limit {self.overdraft_limit}"),
            wallet_id=wallet_id,
            overdraft_limit=self.overdraft_limit,
            reason="mercuria load",
        )

    def command(self, attempt: Attempt, wallet_id: UUID) -> Deposit | Withdraw:
        """Return the command for an attempt at an operation."""
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
