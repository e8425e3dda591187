"""Small files: atomic writes, access rights, and the free space that they need."""

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
"""The free space that a start requires: a full disk stops Kafka and PostgreSQL in the middle of a write."""

PRIVATE = 0o600
PRIVATE_DIRECTORY = 0o700
PRIVATE_UMASK = 0o077
"""The umask of processes that store data: only the owner has access to new files."""

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
    """Replace `path` atomically.

    A reader finds either the old or the complete new content, also after a power failure.
    """
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
    """Open a file for `open(…, opener=…)`. A newly created file is accessible to its owner only."""
    return os.open(path, flags, PRIVATE)


def close_to_others(path: Path) -> None:
    """Remove the access of all other accounts to a file or directory of this account.

    Links are left alone, and so are files of other accounts, such as PostgreSQL's data. If an access control
    list names accounts, the group's bits are its mask, and stay unchanged.
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
    """Return a sentence that reports too little free space, or None if there is enough."""
    if free_bytes >= needed_bytes:
        return None
    return (
        f"There is no disk space for {directory}: {free_bytes // 2**20} MiB are free"
        f" and at least {-(-needed_bytes // 2**20)} MiB are needed."
    )


def require_space(directory: Path, needed_bytes: int = MIN_FREE_BYTES) -> None:
    """Raise an error if the file system of `directory` is nearly full."""
    problem = space_problem(shutil.disk_usage(directory).free, needed_bytes, directory)
    if problem:
        raise StackError(problem)


@contextmanager
def disk_errors_as_sentences(directory: Path) -> Iterator[None]:
    """Convert errors from a full or read-only disk, or from missing rights, to one sentence."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StackError(f"There is no disk space left for {directory}.") from error
        if error.errno in _UNWRITABLE:
            raise StackError(f"The directory {directory} cannot be written: {error.strerror}.") from error
        raise
