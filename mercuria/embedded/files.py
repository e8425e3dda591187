"""Small files that must never be seen half written, for whose eyes they are, and how much room is left for them."""

import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mercuria.embedded.errors import StackError

MIN_FREE_BYTES = 512 * 1024 * 1024
"""The stack does not start with less: Kafka and PostgreSQL stop in the middle of a write when space runs out."""

PRIVATE = 0o600
PRIVATE_DIRECTORY = 0o700
PRIVATE_UMASK = 0o077
"""For processes that keep data: what they make is for its owner only."""

_ACL = "system.posix_acl_access"

_UNWRITABLE = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.ENAMETOOLONG,
)


def write_atomically(path: Path, text: str, mode: int = PRIVATE) -> None:
    """Replace `path`: a reader finds the old content or all of the new, also after a power failure."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), mode)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def open_privately(path: str, flags: int) -> int:
    """Open a file for `open(…, opener=…)`; where it is made, it is for its owner only."""
    return os.open(path, flags, PRIVATE)


def close_to_others(path: Path) -> None:
    """Take a file or directory of this account from all other accounts.

    Links are left alone, and what belongs to another account, as PostgreSQL's data may. Where accounts are named in an
    access control list, the group's bits are its mask, and stay.
    """
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode) or status.st_uid != os.geteuid():
        return
    kept = 0o7770 if _has_acl(path) else 0o7700
    if stat.S_IMODE(status.st_mode) & ~kept:
        path.chmod(stat.S_IMODE(status.st_mode) & kept)


def _has_acl(path: Path) -> bool:
    try:
        return bool(os.getxattr(path, _ACL))
    except OSError:
        return False


def space_problem(free_bytes: int, needed_bytes: int, directory: Path) -> str | None:
    """Return the sentence that says that there is too little room, or None where there is enough."""
    if free_bytes >= needed_bytes:
        return None
    return (
        f"There is no disk space for {directory}: {free_bytes // 2**20} MiB are free"
        f" and at least {-(-needed_bytes // 2**20)} MiB are needed."
    )


def require_space(directory: Path, needed_bytes: int = MIN_FREE_BYTES) -> None:
    """Refuse to go on when the file system of `directory` is nearly full."""
    problem = space_problem(shutil.disk_usage(directory).free, needed_bytes, directory)
    if problem:
        raise StackError(problem)


@contextmanager
def disk_errors_as_sentences(directory: Path) -> Iterator[None]:
    """Turn the errors of a full or read-only disk, or of missing rights, into one sentence."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StackError(f"There is no disk space left for {directory}.") from error
        if error.errno in _UNWRITABLE:
            raise StackError(f"The directory {directory} cannot be written: {error.strerror}.") from error
        raise
