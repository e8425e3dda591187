"""`--output`: the destination of output that is more than a report.

A regular file is replaced once the new one is complete, and keeps its mode, owner and links. Other targets,
such as a device, a pipe or a terminal, are written to directly. click's own `File(atomic=True)` replaces
devices, and also replaces files after a failure; the `atomicwrites` package, no longer maintained, gives
every file the mode 0600.
"""

import errno
import io
import os
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, TextIO

import click

from mercuria.cli.standard_streams import OutputError

STDOUT = "-"

output_option: Callable[[Callable[..., Any]], Callable[..., Any]] = click.option(
    "--output",
    default=STDOUT,
    metavar="FILE",
    help="A file; - is standard output, and the default. What is no regular file, such as a device, is written to.",
)


class UnwritableError(Exception):
    """The file cannot be written; the message is one sentence."""


@contextmanager
def output_file(name: str) -> Iterator[TextIO]:
    """Yield a UTF-8 text file to write; if the block ends without an error, the complete file is in place.

    Raises:
        UnwritableError: the file cannot be written. A regular file is unchanged.
    """
    if not name:
        raise UnwritableError("--output needs the name of a file, or - for standard output")
    if name == STDOUT:
        yield _stdout()
        return
    try:
        with _opened(name) as file:
            yield file
    except OutputError:
        raise
    except OSError as error:
        raise UnwritableError(f"--output {name} cannot be written: {error.strerror or error}") from error


@contextmanager
def _opened(name: str) -> Iterator[TextIO]:
    path = Path(name)
    before = _status(path)
    if before is None and name.endswith(os.sep):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if before is not None and _is_stdout(before):
        # The target is /dev/stdout, or the file to which the shell redirects standard output: its earlier content
        # stays.
        yield _stdout()
        return
    if before is not None and not stat.S_ISREG(before.st_mode):
        # The target exists, so it is neither created nor truncated. The system itself refuses a directory.
        with _text(os.open(path, os.O_WRONLY | os.O_NOCTTY)) as file:
            yield file
        return
    target = path.resolve()
    if before is not None:
        # A file that is not writable must not be replaced either.
        os.close(os.open(target, os.O_WRONLY))
    if before is not None and not _can_be_replaced(target, before):
        with _in_place(target) as file:
            yield file
        return
    with _replacing(target, before) as file:
        yield file


@contextmanager
def _replacing(target: Path, before: os.stat_result | None) -> Iterator[TextIO]:
    """Yield a new file beside `target`, which replaces it at the end."""
    # The new name does not depend on the target's name, which may be as long as the file system allows.
    new = target.with_name(f".mercuria-{secrets.token_hex(8)}")
    # The mode is 0666 minus the umask, as for files that a shell creates.
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with _text(descriptor) as file:
            if before is not None:
                if (before.st_uid, before.st_gid) != _owner_of_new(target.parent):
                    os.chown(new, before.st_uid, before.st_gid)
                # This includes the access control list, which is an extended attribute.
                shutil.copystat(target, new)
                os.utime(new)
            yield file
            file.flush()
            os.fsync(file.fileno())
        new.replace(target)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


@contextmanager
def _in_place(target: Path) -> Iterator[TextIO]:
    """Yield a file whose content is copied into `target` at the end, in one step.

    A crash during that step truncates `target`.
    """
    with tempfile.TemporaryFile("w+b") as whole:
        with _text(os.dup(whole.fileno())) as file:
            yield file
        whole.seek(0)
        with open(target, "r+b") as place:
            _copy(whole, place)


def _copy(whole: IO[bytes], place: IO[bytes]) -> None:
    shutil.copyfileobj(whole, place)
    place.truncate()
    place.flush()
    os.fsync(place.fileno())


def _can_be_replaced(target: Path, before: os.stat_result) -> bool:
    """Return whether replacing the file is invisible to all its users."""
    with suppress(OSError):
        there = target.lstat()
        return (
            os.path.samestat(there, before)
            and before.st_nlink == 1
            and not os.path.ismount(target)
            and os.access(target.parent, os.W_OK | os.X_OK)
            and (os.geteuid() == 0 or (before.st_uid, before.st_gid) == _owner_of_new(target.parent))
        )
    return False


def _owner_of_new(directory: Path) -> tuple[int, int]:
    status = directory.stat()
    return os.geteuid(), status.st_gid if status.st_mode & stat.S_ISGID else os.getegid()


def _status(path: Path) -> os.stat_result | None:
    """Return the status of the file to which a name finally leads, or None if it does not exist."""
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _is_stdout(status: os.stat_result) -> bool:
    return stat.S_ISREG(status.st_mode) and os.path.samestat(status, os.fstat(1))


def _stdout() -> TextIO:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", newline="")
    return sys.stdout


def _text(descriptor: int) -> TextIO:
    return open(descriptor, "w", encoding="utf-8", newline="")
