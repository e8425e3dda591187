"""What a load sends, and under which ids."""

import time
from collections import defaultdict
from typing import NamedTuple
from uuid import UUID, uuid5

from mercuria.app import settings
from mercuria.cli.load.feed import Answer, LoadError
from mercuria.cli.load.statement import Operation
from mercuria.cli.load.words import count
from mercuria.domain.commands import Deposit, OpenWallet, Withdraw
from mercuria.domain.money import format_amount
from mercuria.domain.rejections import DETAILS, Code

NAMESPACE = UUID("6f1c6d2e-3c0a-5d0b-9d0e-5b8b7a4f2c11")
"""Where all ids of loaded owners, wallets and commands come from. With another one, everything would load again."""

RECEIPTS_MARGIN_MS = 60 * 60 * 1000
"""A wallet whose operations may be forgotten within this time is not loaded into: the load itself takes time."""
MS_PER_DAY = 24 * 60 * 60 * 1000


class Terms(NamedTuple):
    """On what terms wallets are opened; the limit in minor units."""

    currency: str
    overdraft_limit: int

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
            overdraft_limit=self.overdraft_limit,
            metadata={"account": account},
        )

    def command(self, operation: Operation, wallet_id: UUID) -> Deposit | Withdraw:
        """Return the command that does an operation."""
        kind = Deposit if operation.kind == "deposit" else Withdraw
        metadata = {"date": operation.date, "note": operation.note}
        return kind(
            id=uuid5(wallet_id, operation.transaction_id),
            wallet_id=wallet_id,
            amount=operation.amount,
            currency=self.currency,
            reference=operation.transaction_id,
            metadata={name: text for name, text in metadata.items() if text},
        )


def owner_id(account: str) -> UUID:
    """Return the id of an account's owner, who has one wallet for each currency."""
    return uuid5(NAMESPACE, account)


class Openings:
    """What became of the commands that open wallets."""

    def __init__(self) -> None:
        self._refused: defaultdict[Code, list[str]] = defaultdict(list)
        self._forgotten_before_ms = (
            time.time() * 1000 + RECEIPTS_MARGIN_MS - settings.receipts_days * MS_PER_DAY
        )

    def hear(self, account: str, answer: Answer) -> None:
        """Take note of the answer for one account."""
        if answer.decision.code is not None:
            self._refused[answer.decision.code].append(account)
        elif answer.time_ms < self._forgotten_before_ms:
            # The operations that followed may be forgotten before this load gets to them.
            self._refused[Code.WALLET_ALREADY_EXISTS].append(account)

    def require_all(self, terms: Terms) -> None:
        """Check that every account has its wallet, and that its operations are remembered.

        Raises:
            LoadError: some have not; what is true of most is said.
        """
        if not self._refused:
            return
        code, accounts = max(self._refused.items(), key=lambda each: len(each[1]))
        wallet_id = terms.wallet_id(accounts[0])
        limit = format_amount(terms.overdraft_limit, terms.currency)
        reasons = {
            Code.COMMAND_ID_REUSED: f"it has another overdraft limit than {limit} {terms.currency}; load the file"
            f" with the limit that `mercuria wallet show {wallet_id}` tells.",
            Code.WALLET_ALREADY_EXISTS: f"it was opened {settings.receipts_days} days ago or earlier, or by somebody"
            " else. Which operations it has had is no longer remembered, and some could count twice.",
        }
        which = f"{'such as ' * (len(accounts) > 1)}{wallet_id} of account {accounts[0]}"
        reason = reasons.get(code, f"it could not be opened. {DETAILS[code]}")
        raise LoadError(
            f"no operation was sent, because of {count(len(accounts), 'wallet')}, {which}: {reason}"
        )
