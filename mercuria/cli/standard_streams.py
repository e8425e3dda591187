"""Standard input, output and error as a command can rely on them, whatever the shell made of them.

A stream may be closed (`>&-`), full (`> /dev/full`), a pipe that nothing reads any more (`| head`), or in an encoding
that lacks a letter (`LC_ALL=C`). Output that cannot be written is an `OutputError`, whatever library writes it; that
an error message cannot be written changes nothing.
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
    """What a command should write cannot be written; the message is a sentence without its full stop.

    It has no `errno`, because click and Rich take a broken pipe for a reason to end with exit code 1.
    """


def settle() -> None:
    """Prepare the streams of this process, once, before anything is printed or opened."""
    if sys.stdin is None:
        _occupy(_STDIN, os.O_RDONLY)
        sys.stdin = io.TextIOWrapper(io.FileIO(_STDIN, closefd=False), encoding="utf-8")
    if sys.stdout is None:
        # What is printed fails, as it does in other programs.
        _occupy(_STDOUT, os.O_RDONLY)
    if sys.stderr is None:
        _occupy(_STDERR, os.O_WRONLY)
    sys.stdout = _wrapped(_Output(_STDOUT, "w", closefd=False), sys.stdout)
    sys.stderr = _wrapped(_Errors(_STDERR, "w", closefd=False), sys.stderr)


def finish() -> None:
    """Write what standard output still holds, before the process ends.

    Raises:
        OutputError: it cannot be written. It is dropped, and so is what is printed from now on.
    """
    try:
        sys.stdout.flush()
    except OutputError:
        # Python would try once more at its end, and say so in its own way.
        _Output.drops = True
        raise


def forget() -> None:
    """Drop what standard output holds and could not write: the next text begins anew, and may be written."""
    _Output.drops = True
    try:
        with suppress(OSError):
            sys.stdout.flush()
    finally:
        _Output.drops = False


def _occupy(number: int, mode: int) -> None:
    """Take the number of a stream that is closed; the next file that is opened would get it, and what is printed."""
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
    """Standard error. What cannot be written is dropped."""

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
        # A letter that the encoding lacks is shown escaped; it never ends a command.
        errors="backslashreplace",
        line_buffering=is_line_buffered,
        write_through=bool(getattr(before, "write_through", False)),
    )
