"""The rows of a CSV file: reads bytes into cells, and reports a file that is not CSV in UTF-8.

The statement interprets the cells (`statement`). A file may begin with a byte order mark and with a line
`sep=,`, as spreadsheets write them, and may use any of the three line endings.
"""

import csv
from collections.abc import Iterator, Sequence
from io import TextIOWrapper
from typing import BinaryIO, NamedTuple

from mercuria.cli.load.errors import LoadError

MAX_LINE_CHARACTERS = 1024 * 1024
MAX_CELL_CHARACTERS = 128 * 1024
SNIFFED_BYTES = 4096

NOT_TEXT = "this is not a text file in UTF-8"
NOT_COMMAS = "the cells must be separated by commas"

_OTHER_SEPARATORS = ";\t|"
# The longer marks come first: UTF-32's begins like UTF-16's.
_OTHER_MARKS = {
    b"\xff\xfe\x00\x00": "UTF-32",
    b"\x00\x00\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}


class Row(NamedTuple):
    """A row's cells, unchanged from the file. `line` is the line on which it begins."""

    line: int
    cells: list[str]

    @property
    def is_blank(self) -> bool:
        """Whether all cells are empty, or the row is the end-of-file mark of DOS."""
        return not "".join(self.cells).strip().strip("\x1a")


class Fault(NamedTuple):
    """The reason why a row is unusable: the end of a sentence that begins with its line number."""

    line: int
    what: str


def rows(file: BinaryIO) -> Iterator[Row | Fault]:
    """Return the rows of an open file from its beginning, without lines that have no cells.

    Bytes that are not UTF-8 are decoded to lone surrogates, which `undecoded` finds.
    """
    file.seek(0)
    fault = _fault_of_encoding(file.read(SNIFFED_BYTES))
    if fault is not None:
        yield fault
        return
    file.seek(0)
    text = TextIOWrapper(file, "utf-8-sig", "surrogateescape", newline="")
    try:
        yield from _after_separator_line(_rows(_Lines(text)))
    finally:
        # Otherwise, the file would be closed with it.
        text.detach()


def undecoded(cell: str) -> str | None:
    """Return the reason why a cell is not UTF-8 text, or None."""
    if not cell.isascii():
        raw = cell.encode("utf-8", "surrogateescape")
        try:
            raw.decode()
        except UnicodeDecodeError as error:
            return f"{NOT_TEXT}: byte 0x{raw[error.start]:02x} in {raw[:40]!r}"
    return None


def wrong_separator(cells: Sequence[str], expected: int) -> bool:
    """Return whether a separator other than the comma seems to separate the `expected` cells."""
    if len(cells) == expected:
        return False
    text = ",".join(cells)
    least = 1 if len(cells) == 1 else expected - 1
    return any(text.count(mark) >= least for mark in _OTHER_SEPARATORS)


class _Lines:
    """The lines of a text, each of limited length; `line` is the number of the last one."""

    def __init__(self, text: TextIOWrapper) -> None:
        self._text = text
        self.line = ""

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        try:
            self.line = self._text.readline(MAX_LINE_CHARACTERS)
        except OSError as error:
            raise LoadError(f"the file cannot be read: {error.strerror}.") from None
        if not self.line:
            raise StopIteration
        if len(self.line) == MAX_LINE_CHARACTERS and self.line[-1] not in "\r\n":
            raise _TooLongError
        return self.line


class _TooLongError(Exception):
    """A line exceeds the length limit; the rest is not read."""


def _rows(lines: _Lines) -> Iterator[Row | Fault]:
    csv.field_size_limit(MAX_CELL_CHARACTERS)
    reader = csv.reader(lines, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except _TooLongError:
            yield Fault(line, f"the line has more than {MAX_LINE_CHARACTERS:,} characters")
            return
        except csv.Error as error:
            yield Fault(line, _in_words(str(error), lines.line))
            continue
        if cells:
            yield Row(line, cells)


def _after_separator_line(found: Iterator[Row | Fault]) -> Iterator[Row | Fault]:
    first = next(found, None)
    if first is None:
        return
    if not isinstance(first, Row) or not first.cells[0].lower().startswith("sep="):
        yield first
    elif ",".join(first.cells).lower() != "sep=,":
        yield Fault(first.line, NOT_COMMAS)
        return
    yield from found


def _fault_of_encoding(start: bytes) -> Fault | None:
    for mark, name in _OTHER_MARKS.items():
        if start.startswith(mark):
            return Fault(1, f"{NOT_TEXT}, but one in {name}; save it as CSV in UTF-8")
    # A single zero byte may be a typo in a note; one in the first line, which has the columns' names, means that this
    # is not text.
    return Fault(1, NOT_TEXT) if b"\0" in start.split(b"\n", 1)[0] else None


def _in_words(error: str, line: str) -> str:
    """Return the meaning of an error of the csv module; `line` is the last line that it read."""
    if any(f'"{mark}' in line or f'{mark}"' in line for mark in _OTHER_SEPARATORS):
        return NOT_COMMAS
    if "unexpected end of data" in error:
        return "a quotation mark is opened here and never closed"
    if "field larger" in error:
        return (
            f"a cell has more than {MAX_CELL_CHARACTERS:,} characters; perhaps a quotation mark is not closed"
        )
    if "expected after" in error:
        return "a quoted cell is followed by something else than a comma"
    return f"this is not CSV ({error})"
