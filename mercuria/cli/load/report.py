"""What came of a load: what is printed at its end, and its exit code."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import click
from rich.console import Console

from mercuria.cli.load.feed import Answer
from mercuria.cli.load.firsts import Firsts, T
from mercuria.cli.load.statement import Operation
from mercuria.cli.load.words import count
from mercuria.domain.rejections import Code


class Refusal(NamedTuple):
    """An operation that a wallet refused."""

    line: int
    account: str
    code: Code
    detail: str


class Difference(NamedTuple):
    """A balance that is not the file's, in minor units."""

    line: int
    account: str
    expected: int
    got: int


@dataclass
class Report:
    """What became of the operations."""

    verify: bool
    expected: int = 0
    done: int = 0
    repeated: int = 0
    seconds: float = 0.0
    refusals: Firsts[Refusal] = field(default_factory=Firsts)
    differences: Firsts[Difference] = field(default_factory=Firsts)
    console: Console = field(default_factory=lambda: Console(stderr=True))

    def hear(self, operation: Operation, answer: Answer) -> None:
        """Take note of the answer to one operation."""
        self.done += 1
        self.repeated += answer.is_repeat
        decision = answer.decision
        line, account, expected = operation.line, operation.account, operation.balance_after
        if decision.code is not None:
            self.refusals.add(Refusal(line, account, decision.code, decision.detail))
        elif self.verify and decision.balance != expected:
            assert expected is not None and decision.balance is not None, "a row without a balance is a fault"
            self.differences.add(Difference(line, account, expected, decision.balance))

    def show(self, wallets: int) -> int:
        """Print everything, and return the exit code."""
        self._list(
            self.refusals, "refused", lambda each: f"account {each.account}: {each.code}: {each.detail}"
        )
        self._list(
            self.differences,
            "followed by another balance than the file has",
            lambda each: (
                f"account {each.account}: balance_after is {each.expected}, and the wallet has {each.got}"
            ),
        )
        rate = (self.done + wallets) / max(self.seconds, 0.001)
        click.echo(
            f"{count(self.done, 'operation')} on {count(wallets, 'wallet')}"
            f" in {self.seconds:.1f} s ({rate:,.0f} commands/s)."
        )
        click.echo(self._repeats())
        if self.verify and not self.refusals and not self.differences:
            click.echo("Every balance is as the file has it.")
        return 1 if self.refusals or self.differences else 0

    def interruption(self) -> str:
        """Say what is done when the load ends early."""
        if not self.expected:
            return "Nothing was sent."
        are = "is" if self.done == 1 else "are"
        return (
            f"Of {count(self.expected, 'operation')}, {self.done:,} {are} decided, and what was sent beyond that will"
            " be. Load the file again to go on: nothing counts twice."
        )

    def _repeats(self) -> str:
        if self.repeated == self.done:
            return "All were already done before: nothing has changed."
        if not self.repeated:
            return "None of them was done before."
        return f"{self.repeated:,} of them {'were' if self.repeated > 1 else 'was'} already done before."

    def _list(self, firsts: Firsts[T], what: str, describe: Callable[[T], str]) -> None:
        if not firsts:
            return
        click.echo(f"{count(firsts.total, 'operation')} {'were' if firsts.total > 1 else 'was'} {what}:")
        for each in firsts:
            click.echo(f"  line {each.line}, {describe(each)}")
        if firsts.left_out:
            click.echo(f"  and {firsts.left_out:,} more")
