"""The report of a load: its output, and its exit code."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import click
from rich.console import Console

from mercuria.cli.load.attempts import Refused
from mercuria.cli.load.feed import Answer
from mercuria.cli.load.firsts import Firsts, T
from mercuria.cli.load.statement import Findings, Operation
from mercuria.cli.load.terms import Attempt, Terms
from mercuria.cli.load.verification import Difference, Verification
from mercuria.cli.load.words import count, were
from mercuria.cli.showing import show_json
from mercuria.domain.money import format_amount
from mercuria.domain.printable import printable
from mercuria.domain.rejections import Code

EXIT_DIFFERENT = 1
"""An operation was refused, or a balance differs."""


@dataclass
class Report:
    """The results of the operations.

    Attributes:
        decided: rows that have their first answer.
        done_now, done_before: rows that were accepted in this load, and in an earlier one.
        done_again: rows accepted in this load that an earlier load was refused.
        openings_now, openings_before, openings_elsewhere: opening balances that were accepted in this load or
            before, and those of accounts that have another one from an earlier load, or had money in their
            wallet already.
        limits_changed: wallets to which this load has given another overdraft limit.
    """

    verify: bool
    findings: Findings = field(default_factory=Findings)
    decided: int = 0
    done_now: int = 0
    done_before: int = 0
    done_again: int = 0
    openings_now: int = 0
    openings_before: int = 0
    openings_elsewhere: int = 0
    limits_changed: int = 0
    seconds: float = 0.0
    refusals: Sequence[Refused] = ()
    verification: Verification = field(default_factory=Verification)
    differences: Firsts[Difference] = field(default_factory=Firsts)
    console: Console = field(default_factory=lambda: Console(stderr=True))

    def count_opening(self, is_elsewhere: bool, is_repeat: bool) -> None:
        """Count an accepted opening balance, which may have to be reversed."""
        self.openings_elsewhere += is_elsewhere
        self.openings_before += is_repeat and not is_elsewhere
        self.openings_now += not is_repeat and not is_elsewhere

    def count_done(self, attempt: Attempt, answer: Answer) -> None:
        """Count an accepted operation."""
        if not attempt.operation.own:
            self.done_before += answer.is_repeat
            self.done_now += not answer.is_repeat
            self.done_again += not answer.is_repeat and attempt.number > 0

    def show(self, terms: Terms, has_openings: bool, as_json: bool = False) -> int:
        """Print the report, and return the exit code."""
        if self.verify:
            for difference in self.verification.differences():
                self.differences.add(difference)
        refusals = Firsts[_Line]()
        for each in self.refusals:
            refusals.add(_Line(each.attempt.operation.line, each))
        code = EXIT_DIFFERENT if self.refusals or self.differences else 0
        if as_json:
            show_json(self._figures(terms, refusals))
            return code
        _list(refusals, "refused", lambda each: _describe(each.refused))
        _list(
            self.differences,
            "followed by another balance than the file has",
            lambda each: (
                f"account {printable(each.account)}: balance_after is {each.expected}, and the wallet has {each.got}"
            ),
        )
        wallets = len(self.findings.accounts)
        rate = (self.decided + wallets) / max(self.seconds, 0.001)
        click.echo(
            f"{count(self.decided, 'operation')} on {count(wallets, 'wallet')}"
            f" in {self.seconds:.1f} s ({rate:,.0f} commands/s)."
        )
        self._echo(self._outcomes())
        self._echo(self._remarks(terms, has_openings))
        self._echo(_hints(self.refusals, terms))
        return code

    def interruption(self) -> str:
        """Return what is done so far, for a load that ends early."""
        expected = self.findings.operations
        if not expected:
            return "Nothing was sent."
        are = "is" if self.decided == 1 else "are"
        return (
            f"Of {count(expected, 'operation')}, {self.decided:,} {are} decided, and what was sent beyond that will"
            " be. Load the file again to go on: nothing counts twice."
        )

    def _figures(self, terms: Terms, refusals: "Firsts[_Line]") -> dict[str, Any]:
        """Return the report as data for programs, with amounts in minor units.

        Of long lists, only the first lines are included.
        """
        return {
            "currency": terms.currency,
            "operations": self.decided,
            "wallets": len(self.findings.accounts),
            "seconds": round(self.seconds, 3),
            "done_now": self.done_now,
            "done_before": self.done_before,
            "done_again": self.done_again,
            "refused": refusals.total,
            "refusals": [_as_dict(each.refused, terms) for each in refusals],
            "balances_verified": self.verify,
            "different": self.differences.total,
            "differences": [each._asdict() for each in self.differences],
            "not_compared": self.verification.not_compared if self.verify else 0,
            "openings_now": self.openings_now,
            "openings_before": self.openings_before,
            "openings_elsewhere": self.openings_elsewhere,
            "limits_changed": self.limits_changed,
            "blank_rows": self.findings.blank_rows,
            "zero_rows": self.findings.zero_rows,
            "trimmed_rows": self.findings.trimmed_rows,
        }

    def _outcomes(self) -> Iterator[str]:
        refused = sum(not each.attempt.operation.own for each in self.refusals)
        nothing_new = not (self.openings_now or self.limits_changed)
        if refused:
            before = sum(each.attempt.number > 0 for each in self.refusals if not each.attempt.operation.own)
            again = f", {before:,} of them not for the first time" if before else ""
            yield (
                f"{were(self.done_now)} done now, {were(self.done_before)} already done before,"
                f" {were(refused)} refused{again}."
            )
        elif self.done_before and not self.done_now:
            yield f"All were already done before{': nothing has changed' * nothing_new}."
        elif self.done_before:
            yield f"{self.done_before:,} of them {'was' if self.done_before == 1 else 'were'} already done before."
        elif self.done_now:
            yield "None of them was done before."
        if self.done_again:
            yield f"{were(self.done_again)} done now that an earlier load was refused."

    def _remarks(self, terms: Terms, has_openings: bool) -> Iterator[str]:
        found = self.findings
        if self.limits_changed:
            assert terms.overdraft_limit is not None
            limit = format_amount(terms.overdraft_limit, terms.currency)
            wallets = f"{count(self.limits_changed, 'wallet')}{' each' * (self.limits_changed > 1)}"
            yield f"{wallets} got the overdraft limit {limit} {terms.currency}, instead of another one."
        if has_openings:
            yield (
                f"Opening balances: {self.openings_now:,} done now, {self.openings_before:,} already done before,"
                f" {self.openings_elsewhere:,} left out, because the wallet had money or an opening balance already."
            )
        skipped = [f"{count(found.blank_rows, 'blank row')}"] * bool(found.blank_rows)
        skipped += [f"{count(found.zero_rows, 'row')} of amount 0"] * bool(found.zero_rows)
        if skipped:
            yield f"Skipped: {', '.join(skipped)}."
        if found.trimmed_rows:
            yield f"White space around cells was left out in {count(found.trimmed_rows, 'row')}."
        if self.verify and not self.differences:
            yield self._verified()
        if self.differences and not has_openings and found.openings:
            accounts = count(len(found.openings), "account")
            yield f"{accounts} had money before the file begins: --opening-balances loads that as well."

    def _verified(self) -> str:
        if not self.refusals:
            return "Every balance is as the file has it."
        left = self.verification.not_compared
        behind = (
            f" {count(left, 'balance')} behind one {'was' if left == 1 else 'were'} not compared."
            * bool(left)
        )
        return (
            f"Up to the first refused operation of each account, every balance is as the file has it.{behind}"
        )

    @staticmethod
    def _echo(sentences: Iterator[str]) -> None:
        for sentence in sentences:
            click.echo(sentence)


@dataclass(frozen=True)
class _Line:
    line: int
    refused: Refused


def _as_dict(refused: Refused, terms: Terms) -> dict[str, Any]:
    operation, decision = refused.attempt.operation, refused.answer.decision
    return {
        "line": operation.line,
        "account": operation.account,
        "wallet_id": str(terms.wallet_id(operation.account)),
        "transaction_id": operation.transaction_id,
        "operation": operation.own or operation.kind,
        "code": decision.code,
        "detail": decision.detail,
        "refused_before": refused.attempt.number > 0,
    }


def _describe(refused: Refused) -> str:
    operation, decision = refused.attempt.operation, refused.answer.decision
    name = f", {operation.transaction_id}" * bool(operation.own)
    again = " It was refused before, too." * (refused.attempt.number > 0)
    return f"account {printable(operation.account)}{name}: {decision.code}: {decision.detail}{again}"


def _hints(refusals: Sequence[Refused], terms: Terms) -> Iterator[str]:
    """Return hints about refusals; each hint leads to another result than the same refusal."""
    firsts: dict[Code | None, Operation] = {}
    for each in refusals:
        firsts.setdefault(each.answer.decision.code, each.attempt.operation)
    for code, operation in firsts.items():
        wallet_id = terms.wallet_id(operation.account)
        which = f"{wallet_id} (account {printable(operation.account)})"
        if code is Code.INSUFFICIENT_FUNDS:
            yield (
                f"`mercuria wallet set-limit {wallet_id} AMOUNT` lets the wallet of account"
                f" {printable(operation.account)} go further below zero; --overdraft-limit with another amount than in"
                " the loads before does so for all of the file."
            )
        elif code is Code.COMMAND_ID_REUSED:
            yield "A row that has changed since it was loaded needs another transaction_id, if it is another operation."
        elif code is Code.WALLET_FROZEN:
            yield f"An operator must unfreeze {which} first."
        elif code is Code.WALLET_CLOSED:
            yield f"Wallet {which} is closed; its rows cannot be loaded."
    if firsts.keys() - {Code.COMMAND_ID_REUSED, Code.WALLET_CLOSED}:
        yield "Load the file again when the cause has gone: what was refused is tried again, and nothing counts twice."


def _list(firsts: Firsts[T], what: str, describe: Callable[[T], str]) -> None:
    if not firsts:
        return
    click.echo(f"{count(firsts.total, 'operation')} {'were' if firsts.total > 1 else 'was'} {what}:")
    for each in firsts:
        click.echo(f"  line {each.line}, {describe(each)}")
    if firsts.left_out:
        click.echo(f"  and {firsts.left_out:,} more")
