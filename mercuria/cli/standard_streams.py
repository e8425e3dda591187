"""Standard input, output and error in a reliable state, whatever the shell has set up.

A stream may be closed (`>&-`), full (`> /dev/full`), a pipe without a reader (`| head`), or in an encoding
that lacks a letter (`LC_ALL=C`). A failed write to standard output is an `OutputError`, whichever library
writes; a failed write of an error message has no effect.
"""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from typing_extensions import Buffer

_STDIN, _STDOUT, _STDERR = 0, 1, 2


class OutputError(OSError):
    """A command's output cannot be written; the message is a sentence without its full stop.

    The error has no `errno`, because click and Rich exit with code 1 on a broken pipe.
    """


def settle() -> None:
    """Prepare the streams of this process, once, before anything is printed or opened."""
    if sys.stdin is None:
        _occupy(_STDIN, os.O_RDONLY)
        sys.stdin = io.TextIOWrapper(io.FileIO(_STDIN, closefd=False), encoding="utf-8")
    if sys.stdout is None:
        # Printing then fails, as it does in other programs.
        _occupy(_STDOUT, os.O_RDONLY)
    if sys.stderr is None:
        _occupy(_STDERR, os.O_WRONLY)
    sys.stdout = _wrapped(_Output(_STDOUT, "w", closefd=False), sys.stdout)
    sys.stderr = _wrapped(_Errors(_STDERR, "w", closefd=False), sys.stderr)


def finish() -> None:
    """Flush standard output, before the process ends.

    Raises:
        OutputError: the output cannot be written. It is dropped, and so is all later output.
    """
    try:
        sys.stdout.flush()
    except OutputError:
        # Python would try again at its end, and print its own message.
        _Output.drops = True
        raise


def forget() -> None:
    """Drop the pending content of standard output: the next text begins anew, and may be written."""
    _Output.drops = True
    try:
        with suppress(OSError):
            sys.stdout.flush()
    finally:
        _Output.drops = False


def _occupy(number: int, mode: int) -> None:
    """Occupy the number of a closed stream.

    Otherwise, the next opened file would get the number, and with it the output.
    """
    opened = os.open(os.devnull, mode)
    if opened != number:
        os.dup2(opened, number, inheritable=False)
        os.close(opened)


class _Output(io.FileIO):
    """Standard output."""

    drops = False

    def write(self, data: Buffer, /) -> int:
        if self.drops:
            return memoryview(data).nbytes
        try:
            return super().write(data)
        except OSError as error:
            raise OutputError(f"standard output cannot be written: {error.strerror}") from error


class _Errors(io.FileIO):
    """Standard error. Text that cannot be written is dropped."""

    def write(self, data: Buffer, /) -> int:
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


def _wrapped(raw: io.FileIO, before: TextIO | None) -> TextIO:
    is_line_buffered = raw.isatty() or raw.fileno() == _STDERR
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=before.encoding if before is not None else "utf-8",
        # A letter that the encoding lacks is escaped; it never ends a command.
        errors="backslashreplace",
        line_buffering=is_line_buffered,
        write_through=bool(getattr(before, "write_through", False)),
    )
