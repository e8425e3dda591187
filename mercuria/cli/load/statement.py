"""A statement: a CSV file of operations on accounts, in the order in which a bank did them.

`check` names every bad row before anybody acts on a good one, and `operations` reads the file a second time, so that
a file of any length takes little memory. Amounts and balances are integers of minor units.
"""

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import BinaryIO, Literal, NamedTuple

from mercuria.cli.load.firsts import Firsts
from mercuria.domain.money import MAX_AMOUNT

COLUMNS = ("transaction_id", "date", "account", "operation", "amount", "balance_after", "note")
KINDS: dict[str, Literal["deposit", "withdrawal"]] = {
    "deposit": "deposit",
    "withdraw": "withdrawal",
    "withdrawal": "withdrawal",
}
MAX_ID_CHARACTERS = 255
MAX_NOTE_CHARACTERS = 500
SHOWN_CHARACTERS = 40

_AMOUNT = re.compile("[0-9]{1,100}", re.ASCII)
_BALANCE = re.compile("-?[0-9]{1,100}", re.ASCII)
_NO_TEXT = re.compile("[\0\ud800-\udfff]")


class Operation(NamedTuple):
    """One row. `line` is where it begins in the file, `balance_after` is None where the cell is empty."""

    line: int
    transaction_id: str
    date: str
    account: str
    kind: Literal["deposit", "withdrawal"]
    amount: int
    balance_after: int | None
    note: str


class Fault(NamedTuple):
    """Why a row cannot be used: the end of a sentence that begins with its line number."""

    line: int
    what: str


@dataclass
class Findings:
    """What `check` found: how many operations, on which accounts (in the order in which they appear), and faults."""

    operations: int = 0
    accounts: list[str] = field(default_factory=list)
    faults: Firsts[Fault] = field(default_factory=Firsts)


class Statement:
    """A statement in an open binary file that can be read twice."""

    def __init__(self, file: BinaryIO, *, with_balances: bool = False) -> None:
        self._file = file
        self._with_balances = with_balances

    def check(self) -> Findings:
        """Read the whole file and say what is in it."""
        findings = Findings()
        accounts: dict[str, None] = {}
        lines: dict[str, int] = {}
        for row in self._rows():
            if isinstance(row, Fault):
                findings.faults.add(row)
                continue
            first = lines.setdefault(row.transaction_id, row.line)
            if first != row.line:
                what = f"transaction_id {_shown(row.transaction_id)} stands on line {first} already"
                findings.faults.add(Fault(row.line, what))
            accounts[row.account] = None
            findings.operations += 1
        findings.accounts = list(accounts)
        if not findings.operations and not findings.faults:
            findings.faults.add(Fault(1, "there are no operations below the columns' names"))
        return findings

    def operations(self) -> Iterator[Operation]:
        """Return the operations, without those rows that `check` found fault with."""
        return (row for row in self._rows() if isinstance(row, Operation))

    def _rows(self) -> Iterator[Operation | Fault]:
        self._file.seek(0)
        rows = _cells(_decode(self._file))
        header = next(rows, None)
        if header is None:
            yield Fault(1, "the file is empty")
            return
        fault = header if isinstance(header, Fault) else _fault_of_header(*header)
        if fault is not None:
            yield fault
            return
        order = [header[1].index(name) for name in COLUMNS]
        for row in rows:
            if isinstance(row, Fault):
                yield row
            elif len(row[1]) != len(COLUMNS):
                what = f"there are {len(row[1])} cells instead of {len(COLUMNS)}"
                yield Fault(row[0], what)
            else:
                line, cells = row
                yield parse(line, [cells[place] for place in order], with_balance=self._with_balances)


def parse(line: int, cells: Sequence[str], *, with_balance: bool = False) -> Operation | Fault:
    """Return the operation in the cells of a row, which are in the order of `COLUMNS`."""
    transaction_id, date, account, kind, amount, balance, note = cells
    what = (
        _fault_of_texts(cells)
        or _fault_of_id("transaction_id", transaction_id)
        or _fault_of_date(date)
        or _fault_of_id("account", account)
        or _fault_of_kind(kind)
        or _fault_of_amount(amount)
        or _fault_of_balance(balance, with_balance)
        or _fault_of_note(note)
    )
    if what:
        return Fault(line, what)
    after = int(balance) if balance else None
    return Operation(line, transaction_id, date, account, KINDS[kind], int(amount), after, note)


def _decode(lines: Iterable[bytes]) -> Iterator[str]:
    """Decode line by line; what is not UTF-8 becomes surrogates, and `_fault_of_texts` finds them."""
    for number, line in enumerate(lines):
        yield line.decode("utf-8" if number else "utf-8-sig", "surrogateescape")


def _cells(lines: Iterator[str]) -> Iterator[tuple[int, list[str]] | Fault]:
    """Return each row with the line that it begins on; empty lines are no rows."""
    reader = csv.reader(lines, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Fault(line, f"this is not CSV ({error})")
            continue
        if cells:
            yield line, cells


def _fault_of_header(line: int, names: list[str]) -> Fault | None:
    if _fault_of_texts(names):
        return Fault(line, "this is not a text file in UTF-8")
    if len(names) == 1 and any(mark in names[0] for mark in ";\t"):
        return Fault(line, "the cells must be separated by commas")
    missing = [name for name in COLUMNS if name not in names]
    unknown = [_shown(name) for name in names if name not in COLUMNS]
    twice = sorted({name for name in names if names.count(name) > 1} & set(COLUMNS))
    problems = (
        [f"these columns are missing: {', '.join(missing)}"] * bool(missing)
        + [f"these columns are unknown: {', '.join(unknown)}"] * bool(unknown)
        + [f"these columns are there twice: {', '.join(twice)}"] * bool(twice)
    )
    if not problems:
        return None
    return Fault(line, f"{'; '.join(problems)}; the first line must name {', '.join(COLUMNS)}")


def _fault_of_texts(cells: Sequence[str]) -> str | None:
    for cell in cells:
        if not cell.isascii() and _NO_TEXT.search(cell):
            return f"{cell.encode('utf-8', 'surrogateescape')[:SHOWN_CHARACTERS]!r} is not UTF-8"
        if "\0" in cell:
            return f"{_shown(cell)} has a zero byte in it"
    return None


def _fault_of_id(name: str, text: str) -> str | None:
    if not text.strip():
        return f"{name} is empty"
    if len(text) > MAX_ID_CHARACTERS:
        return f"{name} has {len(text)} characters, and may have {MAX_ID_CHARACTERS}"
    return None


def _fault_of_date(text: str) -> str | None:
    try:
        if text:
            datetime.fromisoformat(text)
    except ValueError:
        return f"date {_shown(text)} is not a date such as 1993-01-31"
    return None


def _fault_of_kind(text: str) -> str | None:
    return None if text in KINDS else f"operation {_shown(text)} is neither deposit nor withdraw"


def _fault_of_amount(text: str) -> str | None:
    if not _AMOUNT.fullmatch(text):
        return f"amount {_shown(text)} is not a whole number of minor units"
    if not 0 < int(text) <= MAX_AMOUNT:
        return f"amount {_shown(text)} must be from 1 to {MAX_AMOUNT}"
    return None


def _fault_of_balance(text: str, is_needed: bool) -> str | None:
    if not text:
        return "balance_after is empty, and there is nothing to verify" if is_needed else None
    if not _BALANCE.fullmatch(text) or abs(int(text)) > MAX_AMOUNT:
        return f"balance_after {_shown(text)} is not a whole number of minor units within 64 bits"
    return None


def _fault_of_note(text: str) -> str | None:
    if len(text) > MAX_NOTE_CHARACTERS:
        return f"note has {len(text)} characters, and may have {MAX_NOTE_CHARACTERS}"
    return None


def _shown(text: str) -> str:
    return repr(text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…")
