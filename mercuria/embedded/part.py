"""A part of the stack: one process to start, monitor and stop; the base of every server and worker."""

import os
import signal
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

import psutil

from mercuria.embedded import processes
from mercuria.embedded.account import Account
from mercuria.embedded.directory import DataDirectory
from mercuria.embedded.errors import StackError, StackStopped
from mercuria.embedded.files import PRIVATE_UMASK
from mercuria.embedded.ports import LOOPBACK

POLL_S = 0.05


class Part(ABC):
    """One process of the stack.

    `wanted` says whether the part should run, `supervised` whether the stack restarts it when it dies. A part
    can be killed and suspended, so that tests can check how the others react.
    """

    title: ClassVar[str]
    stop_signal: ClassVar[int] = signal.SIGTERM
    stop_timeout_s: ClassVar[float] = 20
    start_timeout_s: ClassVar[float] = 60

    def __init__(self, name: str, directory: DataDirectory, port: int, interrupted: threading.Event) -> None:
        self.name = name
        self.directory = directory
        self.port = port
        self.log = directory.log(name)
        self.wanted = False
        self.supervised = False
        self.was_ready = False
        self._interrupted = interrupted
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.RLock()

    @abstractmethod
    def command(self) -> list[str]:
        """Return the command line."""

    def environment(self) -> dict[str, str]:
        """Return the environment of the process.

        It excludes that of the starter, which may be set up for other servers.
        """
        return {"PATH": os.defpath, "LANG": "C.UTF-8"}

    @abstractmethod
    def probe(self) -> bool:
        """Return whether the process answers; must return quickly."""

    def prepare(self) -> None:  # noqa: B027  most parts need nothing
        """Create what the process needs before it can start."""

    def account(self) -> Account | None:
        """Return the account to run as; None for the starter's own."""
        return None

    def working_directory(self) -> Path | None:
        """Return the working directory of the process; None for the starter's own."""
        return None

    @property
    def address(self) -> str:
        """The address on which the part listens."""
        return f"{LOOPBACK}:{self.port}"

    @property
    def pid(self) -> int | None:
        """The pid of the process; None if it does not run."""
        return self._process.pid if self._process is not None and self.is_alive() else None

    @property
    def exit_code(self) -> int | None:
        """The exit code: negative for a signal, None while the process runs and before its first start."""
        return None if self._process is None else self._process.poll()

    def is_alive(self) -> bool:
        """Return whether the process runs; a suspended process does."""
        return self._process is not None and self._process.poll() is None

    def is_ready(self) -> bool:
        """Return whether the process runs and answers."""
        ready = self.is_alive() and self.probe()
        self.was_ready = self.was_ready or ready
        return ready

    def last_log_lines(self, count: int = 10) -> list[str]:
        """Return the last lines of the part's log."""
        return self.log.last_lines(count)

    def start(self) -> None:
        """Start the process, and wait until it answers.

        Raises:
            StackError: the process ended, or does not answer in time.
        """
        self.launch()
        self.wait_ready()

    def launch(self) -> None:
        """Start the process without waiting."""
        self.wanted = True
        self.relaunch()

    def relaunch(self) -> None:
        """Start the process if it is still wanted and does not run."""
        with self._lock:
            if not self.wanted or self._interrupted.is_set():
                raise StackStopped
            if self.is_alive():
                return
            self.prepare()
            self._spawn()

    def wait_ready(self) -> None:
        """Wait until the process answers."""
        deadline = time.monotonic() + self.start_timeout_s
        while not self.is_ready():
            if not self.wanted or self._interrupted.is_set():
                raise StackStopped
            if not self.is_alive():
                raise StackError(self.with_log(f"{self.title} ended while it started ({self.ending()})"))
            if time.monotonic() > deadline:
                late = f"{self.title} does not answer {self.start_timeout_s:.0f} seconds after its start"
                raise StackError(self.with_log(late))
            time.sleep(POLL_S)

    def stop(self) -> None:
        """Stop the process cleanly, and kill it if that takes too long. It stays stopped."""
        self.wanted = False
        with self._lock:
            # PostgreSQL waits for its child processes, and a suspended one never ends.
            self.resume()
            if self._process is not None:
                with suppress(psutil.NoSuchProcess):
                    process = psutil.Process(self._process.pid)
                    processes.stop(process, self.stop_signal, self.stop_timeout_s)
                self._process.wait()
            self.directory.remove_pid_files([self.name])

    def kill(self) -> None:
        """Kill the process and its children as a power failure would (SIGKILL); wait until they are gone."""
        for process in self._family():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        if self._process is not None:
            self._process.wait()

    def suspend(self) -> None:
        """Suspend the process and its children, as an overloaded machine would."""
        for process in self._family():
            with suppress(psutil.NoSuchProcess):
                process.suspend()

    def resume(self) -> None:
        """Resume the process."""
        for process in self._family():
            with suppress(psutil.NoSuchProcess):
                process.resume()

    def ending(self) -> str:
        """Return how the process ended, in words."""
        code = self.exit_code
        if code is not None and code < 0:
            return f"signal {signal.Signals(-code).name}"
        return f"exit code {code}"

    def with_log(self, what: str, count: int = 10) -> str:
        """Return a message with the part's last log lines."""
        lines = "".join(f"\n    {line}" for line in self.last_log_lines(count))
        return f"{what}; the last lines of {self.log.path}:{lines or ' none.'}"

    def _spawn(self) -> None:
        self.was_ready = False
        account = self.account()
        with self.log.open() as log:
            self._process = subprocess.Popen(
                self.command(),
                cwd=self.working_directory(),
                env=self.environment() | processes.mark(self.directory.path, self.name),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # The terminal's Ctrl-C goes to `mercuria up` alone, which stops the parts in their order.
                umask=PRIVATE_UMASK,
                start_new_session=True,
                user=account.uid if account else None,
                group=account.gid if account else None,
                extra_groups=[] if account else None,
            )
        processes.write_pid(self.directory.pid_file(self.name), self._process.pid)

    def _family(self) -> list[psutil.Process]:
        with suppress(psutil.NoSuchProcess):
            if self.pid is not None:
                process = psutil.Process(self.pid)
                return [process, *process.children(recursive=True)]
        return []
