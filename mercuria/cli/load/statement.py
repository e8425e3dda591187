"""A statement: a CSV file of operations on accounts, in the order in which a bank executed them.

`check` reports every bad row before any good row is used. `operations` reads the file a second time, so that
a file of any length takes little memory. Amounts and balances are integers of minor units. White space around
cells is ignored, except in notes; blank rows are skipped.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import BinaryIO, Literal, NamedTuple

from mercuria.cli.load.firsts import Firsts
from mercuria.cli.load.rows import NOT_COMMAS, Fault, Row, rows, undecoded, wrong_separator
from mercuria.cli.load.texts import fault_of_text, likeness, shown
from mercuria.domain.effective import text_of
from mercuria.domain.money import MAX_AMOUNT

COLUMNS = ("transaction_id", "date", "account", "operation", "amount", "balance_after", "note")
KINDS: dict[str, Literal["deposit", "withdrawal"]] = {
    "deposit": "deposit",
    "withdraw": "withdrawal",
    "withdrawal": "withdrawal",
}
MAX_ID_CHARACTERS = 255
MAX_NOTE_CHARACTERS = 500
OPENING = "opening balance"

_AMOUNT = re.compile("[0-9]{1,100}", re.ASCII)
_BALANCE = re.compile("-?[0-9]{1,100}", re.ASCII)


class Operation(NamedTuple):
    """One row. `line` is the line on which it begins; `balance_after` is None if the cell is empty.

    An amount of 0 moves nothing. `own` is empty for a row; an `opening` is the balance of an account before
    its first row, and a `reversal` reverses that. `untrimmed` are the transaction_id and the account exactly
    as in the file, if one of them has white space around it.
    """

    line: int
    transaction_id: str
    date: str
    account: str
    kind: Literal["deposit", "withdrawal"]
    amount: int
    balance_after: int | None
    note: str
    own: Literal["", "opening", "reversal"] = ""
    untrimmed: tuple[str, str] | None = None

    @property
    def change(self) -> int:
        """The change of the balance."""
        return self.amount if self.kind == "deposit" else -self.amount


@dataclass
class Findings:
    """The result of `check`.

    Attributes:
        operations: the number of rows that move money.
        accounts: the accounts in the order in which they appear.
        openings: by account, the balance before its first row, if the file implies one that is not 0.
        blank_rows, zero_rows, trimmed_rows: the numbers of rows that were skipped, that move nothing, and
            that have white space around their cells.
    """

    operations: int = 0
    accounts: list[str] = field(default_factory=list)
    openings: dict[str, int] = field(default_factory=dict)
    blank_rows: int = 0
    zero_rows: int = 0
    trimmed_rows: int = 0
    faults: Firsts[Fault] = field(default_factory=Firsts)


class Statement:
    """A statement in an open binary file that can be read twice.

    Args:
        with_balances: treat an empty balance_after as a fault.
        with_openings: treat an account whose opening balance the file does not imply as a fault.
    """

    def __init__(self, file: BinaryIO, *, with_balances: bool = False, with_openings: bool = False) -> None:
        self._file = file
        self._with_balances = with_balances
        self._with_openings = with_openings

    def check(self) -> Findings:
        """Read the whole file, and return the findings."""
        findings = Findings()
        transactions, accounts = _Texts("transaction_id"), _Texts("account")
        openings = _Openings()
        for row in self._rows(findings):
            if isinstance(row, Fault):
                findings.faults.add(row)
                continue
            what = accounts.fault_of_other(row.account, row.line)
            if row.transaction_id:
                what = transactions.fault_of_any(row.transaction_id, row.line) or what
            if what:
                findings.faults.add(Fault(row.line, what))
            openings.hear(row)
            findings.operations += row.amount > 0
            findings.zero_rows += row.amount == 0
        findings.accounts = list(openings.lines)
        findings.openings = openings.known
        for fault in openings.faults(self._with_openings):
            findings.faults.add(fault)
        if not findings.accounts and not findings.faults:
            findings.faults.add(Fault(1, "there are no operations below the columns' names"))
        return findings

    def operations(self, openings: Mapping[str, int] | None = None) -> Iterator[Operation]:
        """Return the operations, without rows in which `check` has found a fault.

        The balances `openings`, by account, become operations of their own, each before the account's first
        row.
        """
        left = dict(openings or {})
        for row in self._rows(Findings()):
            if isinstance(row, Operation):
                balance = left.pop(row.account, 0)
                if balance:
                    yield _opening(row, balance)
                yield row

    def _rows(self, findings: Findings) -> Iterator[Operation | Fault]:
        found = self._with_cells(findings)
        header = next(found, None)
        if header is None:
            yield Fault(1, "the file is empty")
            return
        if isinstance(header, Fault):
            yield header
            return
        fault = _fault_of_header(header)
        if fault is not None:
            yield fault
            return
        names = _names(header.cells)
        order = [names.index(name) for name in COLUMNS]
        note = names.index("note")
        for row in found:
            if isinstance(row, Fault):
                yield row
                continue
            cells = _without_excess(row.cells, len(names))
            if len(cells) != len(names):
                yield Fault(row.line, _wrong_number(cells, len(names)))
                continue
            trimmed = [cell if place == note else cell.strip() for place, cell in enumerate(cells)]
            parsed = parse(row.line, [trimmed[place] for place in order], with_balance=self._with_balances)
            if trimmed != cells:
                findings.trimmed_rows += 1
                parsed = _with_untrimmed(
                    parsed, cells[names.index("transaction_id")], cells[names.index("account")]
                )
            yield parsed

    def _with_cells(self, findings: Findings) -> Iterator[Row | Fault]:
        for row in rows(self._file):
            if isinstance(row, Row) and row.is_blank:
                findings.blank_rows += 1
            else:
                yield row


def moment_of(date: str) -> datetime:
    """Return the timestamp of a row's date, in UTC unless it has an offset; a date alone stands for midnight.

    Raises:
        ValueError: the text is not a date.
    """
    return datetime.fromisoformat(date)


def parse(line: int, cells: Sequence[str], *, with_balance: bool = False) -> Operation | Fault:
    """Return the operation in a row's cells, which are trimmed and in the order of `COLUMNS`."""
    transaction_id, date, account, kind, amount, balance, note = cells
    moves_nothing = bool(amount) and not amount.strip("0")
    what = (
        _fault_of_texts(cells)
        or (_fault_of_id("transaction_id", transaction_id) if transaction_id or not moves_nothing else None)
        or _fault_of_date(date)
        or _fault_of_id("account", account)
        or (_fault_of_kind(kind) if kind or not moves_nothing else None)
        or _fault_of_amount(amount)
        or _fault_of_balance(balance, with_balance)
        or _fault_of_note(note)
    )
    if what:
        return Fault(line, what)
    after = int(balance) if balance else None
    return Operation(line, transaction_id, date, account, KINDS[kind or "deposit"], int(amount), after, note)


class _Texts:
    """The texts of a column, by their appearance."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lines: dict[str, int] = {}
        self._others: dict[str, str] = {}

    def fault_of_any(self, text: str, line: int) -> str | None:
        """Return why a text is not allowed here, if the file already has it or one that looks like it."""
        first = self._lines.get(likeness(text))
        fault = self.fault_of_other(text, line)
        return fault or (
            f"{self._name} {shown(text)} stands on line {first} already" if first is not None else None
        )

    def fault_of_other(self, text: str, line: int) -> str | None:
        """Return why a text is not allowed here, if the file already has another one that looks like it."""
        look = likeness(text)
        if look not in self._lines:
            self._lines[look] = line
            if look != text:
                self._others[look] = text
            return None
        if self._others.get(look, look) == text:
            return None
        return f"{self._name} {shown(text)} looks like another one on line {self._lines[look]}, and is not the same"


class _Openings:
    """Computes the balance of each account before its first row, from the account's first balance_after."""

    def __init__(self) -> None:
        self.lines: dict[str, int] = {}
        self.known: dict[str, int] = {}
        self._sums: dict[str, int | None] = {}

    def hear(self, row: Operation) -> None:
        account = row.account
        self.lines.setdefault(account, row.line)
        before = self._sums.get(account, 0)
        if before is None:
            return
        if row.balance_after is None:
            self._sums[account] = before + row.change
            return
        self._sums[account] = None
        opening = row.balance_after - before - row.change
        if opening:
            self.known[account] = opening

    def faults(self, is_needed: bool) -> Iterator[Fault]:
        """Return the faults of opening balances, if they are needed."""
        if not is_needed:
            return
        for account, line in self.lines.items():
            name = f"account {shown(account)}"
            if self._sums[account] is not None:
                yield Fault(line, f"{name} has no balance_after that would say its opening balance")
            elif abs(self.known.get(account, 0)) > MAX_AMOUNT:
                yield Fault(line, f"{name} would have an opening balance beyond 64 bits")


def reversal(opening: Operation) -> Operation:
    """Return the operation that reverses an opening balance."""
    return opening._replace(
        transaction_id=f"{OPENING}, taken back",
        kind="withdrawal" if opening.kind == "deposit" else "deposit",
        balance_after=None,
        own="reversal",
    )


def _with_untrimmed(row: Operation | Fault, transaction_id: str, account: str) -> Operation | Fault:
    if isinstance(row, Fault) or (row.transaction_id, row.account) == (transaction_id, account):
        return row
    return row._replace(untrimmed=(transaction_id, account))


def _opening(first: Operation, balance: int) -> Operation:
    return first._replace(
        transaction_id=OPENING,
        kind="deposit" if balance > 0 else "withdrawal",
        amount=abs(balance),
        balance_after=balance,
        note="",
        own="opening",
        untrimmed=None,
    )


def _names(cells: list[str]) -> list[str]:
    """Return the columns' names, without the empty ones that spreadsheets add at the end."""
    return _without_excess([cell.strip() for cell in cells], len(COLUMNS))


def _without_excess(cells: list[str], expected: int) -> list[str]:
    while len(cells) > expected and not cells[-1].strip():
        cells = cells[:-1]
    return cells


def _wrong_number(cells: Sequence[str], expected: int) -> str:
    if wrong_separator(cells, expected):
        return NOT_COMMAS
    there = "there is 1 cell" if len(cells) == 1 else f"there are {len(cells)} cells"
    return f"{there} instead of {expected}"


def _fault_of_header(header: Row) -> Fault | None:
    line, names = header.line, _names(header.cells)
    what = _fault_of_texts(names)
    if what:
        return Fault(line, what)
    if wrong_separator(names, len(COLUMNS)):
        return Fault(line, NOT_COMMAS)
    missing = [name for name in COLUMNS if name not in names]
    unknown = [shown(name) for name in names if name not in COLUMNS]
    twice = sorted({name for name in names if names.count(name) > 1} & set(COLUMNS))
    problems = (
        [f"these columns are missing: {', '.join(missing)}"] * bool(missing)
        + [f"these columns are unknown: {', '.join(unknown)}"] * bool(unknown)
        + [f"these columns are there twice: {', '.join(twice)}"] * bool(twice)
    )
    if not problems:
        return None
    return Fault(line, f"{'; '.join(problems)}; the first line must name {', '.join(COLUMNS)}")


def _fault_of_texts(cells: Iterable[str]) -> str | None:
    for cell in cells:
        fault = undecoded(cell)
        if fault is not None:
            return fault
        if "\0" in cell:
            return f"{shown(cell)} has a zero byte in it"
    return None


def _fault_of_id(name: str, text: str) -> str | None:
    if not text.strip():
        return f"{name} is empty"
    if len(text) > MAX_ID_CHARACTERS:
        return f"{name} has {len(text)} characters, and may have {MAX_ID_CHARACTERS}"
    return fault_of_text(name, text)


def _fault_of_date(text: str) -> str | None:
    try:
        if text:
            text_of(moment_of(text))
    except (ValueError, OverflowError):
        return f"date {shown(text)} is not a date such as 1993-01-31"
    return None


def _fault_of_kind(text: str) -> str | None:
    return None if text in KINDS else f"operation {shown(text)} is neither deposit nor withdraw"


def _fault_of_amount(text: str) -> str | None:
    if not _AMOUNT.fullmatch(text):
        return f"amount {shown(text)} is not a whole number of minor units"
    if int(text) > MAX_AMOUNT:
        return f"amount {shown(text)} must be from 0 to {MAX_AMOUNT}"
    return None


def _fault_of_balance(text: str, is_needed: bool) -> str | None:
    if not text:
        return "balance_after is empty, and there is nothing to verify" if is_needed else None
    if not _BALANCE.fullmatch(text) or abs(int(text)) > MAX_AMOUNT:
        return f"balance_after {shown(text)} is not a whole number of minor units within 64 bits"
    return None


def _fault_of_note(text: str) -> str | None:
    if len(text) > MAX_NOTE_CHARACTERS:
        return f"note has {len(text)} characters, and may have {MAX_NOTE_CHARACTERS}"
    return None
