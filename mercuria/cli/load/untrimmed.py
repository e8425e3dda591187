"""Rows that an earlier version may have loaded under other ids, with white space around texts in them.

Under today's ids, such rows would have a second effect. The wallets are therefore checked for the earlier ids
before anything is sent. The check sends withdrawals that a wallet refuses in any case, because their actor
does not own it. The code of the refusal shows whether the id exists.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple
from uuid import uuid5

from mercuria.cli.load.errors import LoadError
from mercuria.cli.load.feed import Answer
from mercuria.cli.load.statement import Operation
from mercuria.cli.load.terms import Terms
from mercuria.cli.load.words import count
from mercuria.domain.commands import Withdraw
from mercuria.domain.rejections import Code


class Question(NamedTuple):
    """The subject of a check because of a row: its transaction, or the wallet for its account."""

    line: int
    of_account: bool


class Untrimmed:
    """Sends the checks, and collects the rows that an earlier version has loaded."""

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._loaded: list[int] = []

    def questions(self, operations: Iterable[Operation]) -> Iterator[tuple[Withdraw, Question]]:
        """Return the checks to send, for rows with white space around their ids."""
        accounts = set()
        for each in operations:
            if each.untrimmed is None:
                continue
            transaction_id, account = each.untrimmed
            if account != each.account:
                if account not in accounts:
                    accounts.add(account)
                    yield self._ask(account, "\0untrimmed"), Question(each.line, True)
            elif each.amount:
                yield self._ask(account, transaction_id), Question(each.line, False)

    def hear(self, question: Question, answer: Answer) -> None:
        """Process an answer."""
        code = answer.decision.code
        is_there = (
            code is not Code.WALLET_NOT_FOUND if question.of_account else code is Code.COMMAND_ID_REUSED
        )
        if is_there:
            self._loaded.append(question.line)

    def require_none(self) -> None:
        """Check that there are no such rows.

        Raises:
            LoadError: there are such rows; the message names one of them.
        """
        if self._loaded:
            rows = count(len(self._loaded), "row")
            raise LoadError(
                f"no operation was sent: an earlier version has loaded {rows}, such as line {min(self._loaded)}, with"
                " the white space as a part of the account or the transaction_id. Loaded without it, they would count"
                " again; take the rows out that are done already."
            )

    def _ask(self, account: str, name: str) -> Withdraw:
        wallet_id = self._terms.wallet_id(account)
        # The wallet's id is not a person's, so it cannot be the id of a wallet's owner.
        return Withdraw(id=uuid5(wallet_id, name), wallet_id=wallet_id, amount=1, actor_id=wallet_id)
