"""The data directory: the files of one installation, and the lock that `mercuria up` holds on them.

Only the account that starts the stack has access; if root starts it, PostgreSQL's own account may pass
through.

- `kafka/`, `postgres/`, `redis/`: the data of the parts, one subdirectory each
- `logs/<part>.log`: the output of each part
- `<part>.pid`, `up.pid`: the running processes; `up.ready`: a mark that all parts have been ready
- `ports.json`: the ports of the last start
- `stack.env`: the addresses of the stack, for clients
- `leg.key`, `pgpass`: secrets
"""

import errno
import os
import secrets
import shlex
import stat
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from mercuria.config import LEG_KEY_BYTES, STACK_ENV
from mercuria.embedded import processes
from mercuria.embedded.errors import StackError
from mercuria.embedded.files import PRIVATE as PRIVATE
from mercuria.embedded.files import (
    PRIVATE_DIRECTORY,
    close_to_others,
    disk_errors_as_sentences,
    require_space,
    write_atomically,
)
from mercuria.embedded.logs import LogFile

LOCK_FILE = "up.lock"
UP_PID = "up.pid"
UP_READY = "up.ready"
PORTS_FILE = "ports.json"
KEPT = (
    *("kafka", "redis", "logs", "worker-*", "*.pid", "*.lock", "*.key", UP_READY, PORTS_FILE, STACK_ENV),
    *("pgpass", "token-keys.json", "ledger-verified.json"),
)
"""The files in the directory besides PostgreSQL's data, which belong to that server."""


class DataDirectory:
    """The directory of one installation."""

    def __init__(self, path: Path) -> None:
        # The path is resolved, since processes are found by it: one directory has one name, however it is written.
        self.path = path.resolve()
        self._lock = FileLock(self.path / LOCK_FILE, mode=PRIVATE, thread_local=False)

    def open(self) -> None:
        """Create the directory, and take its lock.

        Raises:
            StackError: the directory cannot be written, its disk is full, or another `mercuria up` holds the
                lock.
        """
        with disk_errors_as_sentences(self.path):
            self._make()
            is_own = self._is_own()
            self.subdirectory("logs")
            with tempfile.TemporaryFile(dir=self.path) as probe:
                probe.write(b"?")
            require_space(self.path)
            try:
                # `mercuria status` holds the lock for a moment.
                self._lock.acquire(timeout=1)
            except Timeout:
                raise StackError(self._taken()) from None
            try:
                self._close_to_others(is_own)
                (self.path / UP_READY).unlink(missing_ok=True)
                processes.write_pid(self.path / UP_PID, psutil.Process().pid)
            except OSError:
                self._lock.release(force=True)
                raise

    def close(self) -> None:
        """Release the directory."""
        if self._lock.is_locked:
            try:
                for name in (UP_READY, UP_PID):
                    (self.path / name).unlink(missing_ok=True)
            finally:
                self._lock.release(force=True)

    def mark_ready(self) -> None:
        """Mark the start as finished, for `mercuria status`."""
        (self.path / UP_READY).touch(PRIVATE)

    def is_ready(self) -> bool:
        """Return whether the `mercuria up` that holds the directory has finished its start."""
        return (self.path / UP_READY).exists()

    def is_taken(self) -> bool:
        """Return whether a `mercuria up` holds the directory now."""
        if self._lock.is_locked:
            return True
        if not (self.path / LOCK_FILE).exists():
            return False
        try:
            with disk_errors_as_sentences(self.path), self._lock.acquire(blocking=False):
                return False
        except Timeout:
            return True

    def lock(self) -> AbstractContextManager[object]:
        """Keep every `mercuria up` out of the directory while the returned context is open.

        Raises:
            StackError: another `mercuria up` has just taken the directory.
        """
        try:
            return self._lock.acquire(blocking=False)
        except Timeout:
            raise StackError(self._taken()) from None

    def up(self) -> psutil.Process | None:
        """Return the process that holds the directory."""
        pid = processes.read_pid(self.path / UP_PID)
        if pid is None or not self.is_taken():
            return None
        with suppress(psutil.Error, OSError):
            process = psutil.Process(pid)
            written = (self.path / UP_PID).stat().st_mtime
            # A process that is younger than the file has the reused pid of a dead one; clocks get a tolerance of one
            # second.
            if process.create_time() <= written + 1:
                return process
        return None

    def subdirectory(self, name: str) -> Path:
        """Return a part's own directory. Create it if it does not exist."""
        directory = self.path / name
        directory.mkdir(mode=PRIVATE_DIRECTORY, exist_ok=True)
        return directory

    def log(self, name: str) -> LogFile:
        """Return a part's log."""
        return LogFile(self.path / "logs" / f"{name}.log")

    def pid_file(self, name: str) -> Path:
        """Return the path of a part's pid file."""
        return self.path / f"{name}.pid"

    def recorded_parts(self) -> list[str]:
        """Return the names of the parts that have a pid file, and so may run."""
        return sorted(file.stem for file in self.path.glob("*.pid") if file.name != UP_PID)

    def ensure_leg_key(self) -> None:
        """Create the key that authenticates legs, once."""
        key = self.path / "leg.key"
        if not key.exists():
            write_atomically(key, secrets.token_hex(LEG_KEY_BYTES) + "\n", PRIVATE)

    def write_stack_env(self, env: Mapping[str, str]) -> None:
        """Write the addresses of the stack for later commands, which know the path of this directory."""
        written = {name: value for name, value in env.items() if name != "MERCURIA_DATA_DIR"}
        write_atomically(self.path / STACK_ENV, env_lines(written), PRIVATE)

    def remove_pid_files(self, names: Iterable[str]) -> None:
        """Remove the pid files of parts."""
        for name in names:
            self.pid_file(name).unlink(missing_ok=True)

    def _make(self) -> None:
        try:
            self.path.mkdir(mode=PRIVATE_DIRECTORY, parents=True, exist_ok=True)
        except FileNotFoundError as error:
            # Some file systems return this error if a file cannot be created.
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM)) from error

    def _is_own(self) -> bool:
        """Return whether the directory is exclusive: neither shared by accounts nor a home directory."""
        if self.path.stat().st_mode & stat.S_ISVTX or self.path in (Path.home().resolve(), Path("/")):
            return False
        return (self.path / LOCK_FILE).exists() or not any(self.path.iterdir())

    def _close_to_others(self, is_own: bool) -> None:
        """Close files that earlier versions left open to others.

        Closing the directories of the parts closes their content.
        """
        if is_own:
            close_to_others(self.path)
        kept = [entry for pattern in KEPT for entry in self.path.glob(pattern)]
        for entry in (*kept, *(self.path / "logs").iterdir()):
            with suppress(FileNotFoundError):
                close_to_others(entry)

    def _taken(self) -> str:
        up = processes.read_pid(self.path / UP_PID)
        who = f" (process {up})" if up else ""
        return (
            f"Another `mercuria up`{who} runs in {self.path};"
            f" stop it with `mercuria down --data-dir {self.path}`, or choose another --data-dir."
        )


def env_lines(env: Mapping[str, str]) -> str:
    """Return variables as lines for a shell to source, with quotation marks only where needed."""
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in env.items())
