"""The course of a load: opens the wallets, sets their limits, and sends operations until none is left."""

import time
from collections.abc import Iterable, Iterator
from functools import cache

from aiokafka.errors import KafkaError

from mercuria.cli.load.attempts import Attempts
from mercuria.cli.load.errors import LoadError
from mercuria.cli.load.feed import Answer, Feed, connected, progress_bar, require_topics
from mercuria.cli.load.openings import Openings
from mercuria.cli.load.report import Report
from mercuria.cli.load.statement import Statement, reversal
from mercuria.cli.load.terms import Attempt, Terms
from mercuria.cli.load.untrimmed import Untrimmed
from mercuria.cli.load.verification import Done
from mercuria.config import current_settings
from mercuria.domain.rejections import Code

CHANGED = "the file was changed while it was loaded; load it again: nothing counts twice."


class Loading:
    """One load of a statement without faults; the results go into the report."""

    def __init__(self, statement: Statement, terms: Terms, report: Report, has_openings: bool) -> None:
        self._statement = statement
        self._terms = terms
        self._report = report
        self._openings = report.findings.openings if has_openings else {}
        self._is_compared = report.verify or has_openings
        self._attempts = Attempts(self._done)
        self._opened: list[tuple[Attempt, Answer]] = []
        self._wallet_id = cache(terms.wallet_id)

    async def run(self, patience_s: float) -> None:
        """Run the load.

        Raises:
            LoadError: Mercuria does not answer, or wallets cannot be loaded into.
        """
        report = self._report
        await require_topics()
        async with connected(patience_s) as feed:
            feed.expected = report.findings.operations + len(report.findings.accounts) + len(self._openings)
            began = time.monotonic()
            with progress_bar(feed, report.console):
                if report.findings.trimmed_rows:
                    await self._check_untrimmed(feed)
                await self._open_wallets(feed)
                await self._send(feed, self._first_attempts())
                await self._send_again(feed)
                await self._take_back(feed)
            report.seconds = time.monotonic() - began
        report.refusals = self._attempts.refusals()
        for each in report.refusals:
            report.verification.add_refusal(each.attempt.operation.account, each.attempt.place)
        if report.decided != report.findings.operations:
            raise LoadError(CHANGED)

    async def _check_untrimmed(self, feed: Feed) -> None:
        untrimmed = Untrimmed(self._terms)
        feed.expected += self._report.findings.trimmed_rows
        questions = untrimmed.questions(self._statement.operations())
        await feed.run(questions, untrimmed.hear)
        untrimmed.require_none()

    async def _open_wallets(self, feed: Feed) -> None:
        terms, openings, accounts = self._terms, Openings(), self._report.findings.accounts
        await feed.run(((terms.opening(account), account) for account in accounts), openings.hear)
        try:
            await openings.check_ages(terms)
        except KafkaError as error:
            raise LoadError(
                f"Kafka at {current_settings().kafka} does not answer ({type(error).__name__})."
            ) from None
        openings.require_all(terms)
        if terms.overdraft_limit is not None and openings.on_other_terms:
            feed.expected += len(openings.on_other_terms)
            limits = ((terms.limit(account), account) for account in openings.on_other_terms)
            await feed.run(limits, self._count_limit)

    def _count_limit(self, _account: str, answer: Answer) -> None:
        # A closed wallet refuses the limit, and also the account's operations, which are listed.
        self._report.limits_changed += answer.decision.code is None and not answer.is_repeat

    def _first_attempts(self) -> Iterator[Attempt]:
        place = -1
        for place, operation in enumerate(self._statement.operations(self._openings)):
            if operation.amount:
                yield Attempt(operation, place)
            elif self._is_compared:
                self._report.verification.add_nothing(
                    operation.account, place, operation.line, operation.balance_after
                )
        self._places = place + 1

    async def _send(self, feed: Feed, attempts: Iterable[Attempt]) -> None:
        commands = (
            (self._terms.command(attempt, self._wallet_id(attempt.operation.account)), attempt)
            for attempt in attempts
        )
        await feed.run(commands, self._hear)

    async def _send_again(self, feed: Feed) -> None:
        while following := self._attempts.next_round():
            feed.expected += len(following)
            await self._send(feed, following)

    async def _take_back(self, feed: Feed) -> None:
        """Reverse opening balances of wallets that had received money from other sources.

        Only the wallet's answer gives its earlier balance; an earlier check would be outdated when the money
        arrives.
        """
        verification = self._report.verification
        reversals = []
        for opening, answer in self._opened:
            account = opening.operation.account
            is_left_out = verification.others(account, opening.place) != 0
            self._report.count_opening(is_left_out, answer.is_repeat)
            if is_left_out:
                verification.leave_out(account, opening.place)
                reversals.append(Attempt(reversal(opening.operation), self._places + opening.place))
        feed.expected += len(reversals)
        await self._send(feed, reversals)
        await self._send_again(feed)

    def _hear(self, attempt: Attempt, answer: Answer) -> None:
        operation = attempt.operation
        if not operation.own and attempt.number == 0 and not attempt.is_old_form:
            self._report.decided += 1
        if operation.own == "opening" and answer.decision.code is Code.COMMAND_ID_REUSED:
            # A load of another file, which began at another balance, has set the account's opening balance.
            self._report.openings_elsewhere += 1
        else:
            self._attempts.hear(attempt, answer)

    def _done(self, attempt: Attempt, answer: Answer) -> None:
        operation, decision = attempt.operation, answer.decision
        self._report.count_done(attempt, answer)
        if operation.own == "opening":
            self._opened.append((attempt, answer))
        if not self._is_compared:
            return
        assert decision.balance is not None, "money was moved"
        done = Done(
            attempt.place,
            operation.line,
            operation.change,
            decision.balance,
            decision.offset,
            None if operation.own else operation.balance_after,
        )
        verification = self._report.verification
        verification.add(operation.account, done)
        if operation.own == "reversal":
            verification.leave_out(operation.account, attempt.place)
