"""The account that PostgreSQL runs as when root starts the stack, since PostgreSQL refuses to run as root.

The account must be able to reach its data, which may lie below a closed directory such as `/root`. It alone
gets the right to pass through each closed parent (an access control list entry `u:ACCOUNT:--x`). The modes
that apply to all other accounts stay unchanged.
"""

import os
import pwd
import stat
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

from mercuria.embedded.errors import StackError

NAME = "mercuria"

# The extended attribute of Linux's POSIX access control lists: a version, then entries (tag, permissions, id).
_ACL = "system.posix_acl_access"
_ACL_VERSION = struct.pack("<I", 2)
_ENTRY = struct.Struct("<HHI")
_OWNER, _USER, _GROUP, _NAMED_GROUP, _MASK, _OTHERS = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
_NO_ID = 0xFFFFFFFF
_PASS = 0x1


@dataclass(frozen=True, slots=True)
class Account:
    """An account of the operating system."""

    name: str
    uid: int
    gid: int


def server_account() -> Account | None:
    """Return the account for a server that refuses to run as root; None if this process does not run as root.

    Create the account if it does not exist.
    """
    if os.geteuid() != 0:
        return None
    return _find(NAME) or _make(NAME)


def let_pass(account: Account, directory: Path, *, may_open: bool = False) -> None:
    """Let `account` pass through `directory` and all its parents.

    Args:
        may_open: whether all accounts may pass through `directory` itself if its file system has no access
            control lists. All of its content must be closed.

    Raises:
        StackError: a directory is closed, and its file system has no access control lists.
    """
    for closed in (directory, *directory.parents):
        status = closed.stat()
        if status.st_mode & stat.S_IXOTH or status.st_uid == account.uid:
            continue
        try:
            _grant(closed, account.uid)
        except (OSError, AttributeError) as error:
            if may_open and closed == directory:
                closed.chmod(stat.S_IMODE(status.st_mode) | stat.S_IXOTH)
                continue
            raise StackError(
                f"PostgreSQL refuses to run as root, and its own account {account.name!r} may not enter {closed}:"
                f" allow it with `chmod o+x {closed}`, choose another --data-dir, or start as another user."
            ) from error


def with_entry(acl: bytes, mode: int, uid: int) -> bytes:
    """Return the access control list `acl` (empty: the one that `mode` stands for) with `u:uid:--x` added."""
    entries = [_ENTRY.unpack_from(acl, at) for at in range(len(_ACL_VERSION), len(acl), _ENTRY.size)] or [
        (_OWNER, mode >> 6 & 7, _NO_ID),
        (_GROUP, mode >> 3 & 7, _NO_ID),
        (_OTHERS, mode & 7, _NO_ID),
    ]
    kept = [entry for entry in entries if entry[0] != _MASK and (entry[0], entry[2]) != (_USER, uid)]
    kept.append((_USER, _PASS, uid))
    mask = 0
    for tag, permissions, _ in kept:
        mask |= permissions if tag in (_USER, _GROUP, _NAMED_GROUP) else 0
    kept.append((_MASK, mask, _NO_ID))
    kept.sort(key=lambda entry: (entry[0], entry[2]))
    return _ACL_VERSION + b"".join(_ENTRY.pack(*entry) for entry in kept)


def _grant(directory: Path, uid: int) -> None:
    try:
        acl = os.getxattr(directory, _ACL)
    except OSError:
        acl = b""
    os.setxattr(directory, _ACL, with_entry(acl, directory.stat().st_mode, uid))


def _find(name: str) -> Account | None:
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    return Account(name, entry.pw_uid, entry.pw_gid)


def _make(name: str) -> Account:
    command = ["useradd", "--system", "--user-group", "--no-create-home", "--shell", "/bin/false", name]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise StackError(
            f"PostgreSQL refuses to run as root, and an account {name!r} for it could not be made:"
            " start as another user, or make that account."
        ) from error
    account = _find(name)
    assert account is not None, "useradd has just made it"
    return account
