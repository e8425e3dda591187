"""Verification: whether each balance matches the file, even if operations were not done in the file's order.

A wallet's answer to an operation has its balance after all earlier operations. An operation that was refused
at first, and done in a later load, comes after operations that follow it in the file. Each balance is
therefore corrected: operations that were done before it are subtracted, and operations that precede it in the
file are added. Movements of other clients stay included.
"""

from array import array
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

_NO_BALANCE = -(2**63)
"""Represents a missing balance_after. No balance is so low."""

_NOT_DONE = -1


class Done(NamedTuple):
    """An accepted operation.

    `place` is the operation's position in the file, `offset` that of its record on the command topic.
    `change` and the balances are in minor units; `expected` is balance_after, or None.
    """

    place: int
    line: int
    change: int
    balance: int
    offset: int
    expected: int | None = None


class Difference(NamedTuple):
    """A balance that differs from the file's, in minor units."""

    line: int
    account: str
    expected: int
    got: int


class Verification:
    """Collects the answers by account; each takes forty-eight bytes."""

    def __init__(self) -> None:
        self._done: defaultdict[str, array[int]] = defaultdict(lambda: array("q"))
        self._refused: dict[str, int] = {}
        self._left_out: defaultdict[str, set[int]] = defaultdict(set)

    def add(self, account: str, done: Done) -> None:
        """Add an accepted operation."""
        expected = _NO_BALANCE if done.expected is None else done.expected
        self._done[account].extend((*done[:-1], expected))

    def add_nothing(self, account: str, place: int, line: int, expected: int | None) -> None:
        """Add a row that moves nothing."""
        self.add(account, Done(place, line, 0, 0, _NOT_DONE, expected))

    def add_refusal(self, account: str, place: int) -> None:
        """Add a refused operation: the balances after it are not compared."""
        self._refused[account] = min(place, self._refused.get(account, place))

    def leave_out(self, account: str, place: int) -> None:
        """Mark an accepted operation that is not in the file: an opening balance, or its reversal."""
        self._left_out[account].add(place)

    def others(self, account: str, place: int) -> int:
        """Return the balance before an accepted operation, minus what the file's own operations had moved."""
        return next(others for done, others in _with_others(self._rows(account)) if done.place == place)

    def differences(self) -> Iterator[Difference]:
        """Return the balances that differ from the file's, account by account."""
        for account in self._done:
            until = self._refused.get(account)
            for done, balance in self._in_file(account):
                if done.expected not in (None, balance) and (until is None or done.place < until):
                    assert done.expected is not None
                    yield Difference(done.line, account, done.expected, balance)

    @property
    def not_compared(self) -> int:
        """The number of balances after a refused operation of their account."""
        return sum(
            done.place > place and done.expected is not None
            for account, place in self._refused.items()
            for done in self._rows(account)
        )

    def _in_file(self, account: str) -> Iterator[tuple[Done, int]]:
        """Yield operations in the file's order, each with the balance that this order would have given."""
        rows, left_out = self._rows(account), self._left_out.get(account, set())
        others = {done.place: amount for done, amount in _with_others(rows)}
        in_file = sorted(done for done in rows if done.place not in left_out)
        amount = next((others[done.place] for done in in_file if done.place in others), 0)
        moved = 0
        for done in in_file:
            moved += done.change
            amount = others.get(done.place, amount)
            yield done, amount + moved

    def _rows(self, account: str) -> list[Done]:
        values = self._done.get(account, array("q"))
        step = len(Done._fields)
        rows = (Done(*values[start : start + step]) for start in range(0, len(values), step))
        return [row._replace(expected=None) if row.expected == _NO_BALANCE else row for row in rows]


def _with_others(rows: list[Done]) -> Iterator[tuple[Done, int]]:
    """Yield operations in the order of their execution, each with the part of its balance from others."""
    moved = 0
    for done in sorted((row for row in rows if row.offset != _NOT_DONE), key=lambda row: row.offset):
        moved += done.change
        yield done, done.balance - moved
