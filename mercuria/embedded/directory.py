"""The data directory: everything that one installation keeps, and the lock that one `mercuria up` holds on it.

All of it is for the account that starts the stack; PostgreSQL's own account, where root starts it, may pass through.

- `kafka/`, `postgres/`, `redis/`: the parts' data, one subdirectory each
- `logs/<part>.log`: what each part wrote
- `<part>.pid`, `up.pid`: who runs; `up.ready`: that all of it was ready
- `ports.json`: the ports of last time
- `stack.env`: how a client reaches the stack
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
"""What is in the directory besides PostgreSQL's data, which are that server's own."""


class DataDirectory:
    """One installation's directory."""

    def __init__(self, path: Path) -> None:
        # Resolved, since processes are found by it: one directory has one name, however it is written.
        self.path = path.resolve()
        self._lock = FileLock(self.path / LOCK_FILE, mode=PRIVATE, thread_local=False)

    def open(self) -> None:
        """Make the directory, and take its lock.

        Raises:
            StackError: it cannot be written, its disk is full, or another `mercuria up` has it.
        """
        with disk_errors_as_sentences(self.path):
            self._make()
            is_own = self._is_own()
            self.subdirectory("logs")
            with tempfile.TemporaryFile(dir=self.path) as probe:
                probe.write(b"?")
            require_space(self.path)
            try:
                # `mercuria status` holds it for a moment.
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
        """Give the directory free."""
        if self._lock.is_locked:
            try:
                for name in (UP_READY, UP_PID):
                    (self.path / name).unlink(missing_ok=True)
            finally:
                self._lock.release(force=True)

    def say_ready(self) -> None:
        """Tell `mercuria status` that the start is over."""
        (self.path / UP_READY).touch(PRIVATE)

    def is_ready(self) -> bool:
        """Return whether the `mercuria up` that has the directory has finished its start."""
        return (self.path / UP_READY).exists()

    def is_taken(self) -> bool:
        """Return whether a `mercuria up` has the directory now."""
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
        """Keep every `mercuria up` away for a while.

        Raises:
            StackError: one has just come.
        """
        try:
            return self._lock.acquire(blocking=False)
        except Timeout:
            raise StackError(self._taken()) from None

    def up(self) -> psutil.Process | None:
        """Return the process that has the directory."""
        pid = processes.read_pid(self.path / UP_PID)
        if pid is None or not self.is_taken():
            return None
        with suppress(psutil.Error, OSError):
            process = psutil.Process(pid)
            written = (self.path / UP_PID).stat().st_mtime
            # A process that is younger than the file got a dead one's pid; a second of tolerance for clocks.
            if process.create_time() <= written + 1:
                return process
        return None

    def subdirectory(self, name: str) -> Path:
        """Return a part's own directory, made where it is missing."""
        directory = self.path / name
        directory.mkdir(mode=PRIVATE_DIRECTORY, exist_ok=True)
        return directory

    def log(self, name: str) -> LogFile:
        """Return a part's log."""
        return LogFile(self.path / "logs" / f"{name}.log")

    def pid_file(self, name: str) -> Path:
        """Return where a part's pid stands."""
        return self.path / f"{name}.pid"

    def recorded_parts(self) -> list[str]:
        """Return the names of the parts that a pid file says may run."""
        return sorted(file.stem for file in self.path.glob("*.pid") if file.name != UP_PID)

    def ensure_leg_key(self) -> None:
        """Make the key that authenticates legs, once."""
        key = self.path / "leg.key"
        if not key.exists():
            write_atomically(key, secrets.token_hex(LEG_KEY_BYTES) + "\n", PRIVATE)

    def write_stack_env(self, env: Mapping[str, str]) -> None:
        """Tell the commands that come later where the stack is; where this directory is, they know."""
        told = {name: value for name, value in env.items() if name != "MERCURIA_DATA_DIR"}
        write_atomically(self.path / STACK_ENV, env_lines(told), PRIVATE)

    def remove_pid_files(self, names: Iterable[str]) -> None:
        """Forget who ran."""
        for name in names:
            self.pid_file(name).unlink(missing_ok=True)

    def _make(self) -> None:
        try:
            self.path.mkdir(mode=PRIVATE_DIRECTORY, parents=True, exist_ok=True)
        except FileNotFoundError as error:
            # Some file systems answer so where nothing can be made.
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM)) from error

    def _is_own(self) -> bool:
        """Return whether the directory is for nothing else: not one that accounts share, or a home directory."""
        if self.path.stat().st_mode & stat.S_ISVTX or self.path in (Path.home().resolve(), Path("/")):
            return False
        return (self.path / LOCK_FILE).exists() or not any(self.path.iterdir())

    def _close_to_others(self, is_own: bool) -> None:
        """Close what earlier versions left open. What is in the parts' directories is closed with these."""
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
    """Write variables as lines that a shell can source: quoted only where a shell needs it."""
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in env.items())
