"""What the tests of the embedded stack share: one started stack, the command line as a process, and patience."""

import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from mercuria.embedded.stack import Stack

HERE = Path(__file__).parent
READY_WORKER = (sys.executable, str(HERE / "ready_worker.py"))
UP_READY = (sys.executable, str(HERE / "up_ready.py"))
MERCURIA = (sys.executable, "-m", "mercuria")
HARNESS = ("env", f"--chdir={Path(__file__).parents[2]}", sys.executable, "-m", "tests.harness")

NOWHERE = {
    "MERCURIA_KAFKA": "127.0.0.1:1",
    "MERCURIA_DATABASE": "postgresql://127.0.0.1:1/mercuria",
    "MERCURIA_REDIS": "redis://127.0.0.1:1/0",
}
"""Says that all servers are elsewhere, so that nothing of them is started."""


def clean_environ() -> dict[str, str]:
    """Return this process's environment without what would lead the stack elsewhere."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("MERCURIA_", "PG"))}


def only(*servers: str) -> dict[str, str]:
    """Return an environment in which only `servers` (kafka, database, redis) are started here."""
    here = {f"MERCURIA_{server.upper()}" for server in servers}
    return clean_environ() | {name: value for name, value in NOWHERE.items() if name not in here}


def eventually(condition: Callable[[], object], timeout_s: float = 30) -> None:
    """Wait until `condition` holds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"this did not come true within {timeout_s} s: {condition}"
        time.sleep(0.02)


def survivors(data_dir: Path) -> list[psutil.Process]:
    """Return the processes that belong to a data directory: they carry its mark, or work inside it."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            marked = process.environ().get("MERCURIA_PART", "").endswith(f"@{data_dir}")
            inside = Path(process.cwd()).is_relative_to(data_dir)
            if (marked or inside) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


class Command:
    """A command line that runs beside the test; what it prints, a line at a time."""

    def __init__(self, command: Sequence[str], environ: Mapping[str, str], cwd: Path) -> None:
        self.process = subprocess.Popen(
            command,
            env=environ,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.said: list[str] = []
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def wait_for(self, words: str, timeout_s: float = 60) -> str:
        """Wait until a line holds `words`, and return that line."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                line = self._lines.get(timeout=max(0.01, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"{words!r} did not come within {timeout_s} s: {self.said}") from None
            assert line is not None, f"it ended before it said {words!r}: {self.said}"
            self.said.append(line)
            if words in line:
                return line

    def send(self, number: int) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def finish(self, timeout_s: float = 60) -> int:
        """Wait until it ends, and return its exit code."""
        code = self.process.wait(timeout_s)
        while (line := self._lines.get(timeout=5)) is not None:
            self.said.append(line)
        return code

    def abandon(self) -> None:
        """Kill it where it still runs."""
        with suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()


class CommandLine:
    """Runs `mercuria` for one test, and ends what the test left."""

    def __init__(self, cwd: Path) -> None:
        self._cwd = cwd
        self._commands: list[Command] = []

    def start(self, *command: str, environ: Mapping[str, str] | None = None) -> Command:
        """Start a command."""
        started = Command(command, clean_environ() if environ is None else environ, self._cwd)
        self._commands.append(started)
        return started

    def run(self, *arguments: str, environ: Mapping[str, str] | None = None) -> tuple[int, str]:
        """Run `mercuria ARGUMENTS` to its end; return its exit code and what it printed."""
        command = self.start(*MERCURIA, *arguments, environ=environ)
        code = command.finish()
        return code, "\n".join(command.said)

    def up(self, data_dir: Path, workers: int = 1, environ: Mapping[str, str] | None = None) -> Command:
        """Start `mercuria up` with small workers."""
        return self.start(*UP_READY, str(data_dir), str(workers), environ=environ)

    def clear(self) -> None:
        """End what still runs."""
        for command in self._commands:
            if command.process.poll() is None:
                command.send(signal.SIGTERM)
                with suppress(subprocess.TimeoutExpired):
                    command.process.wait(30)
            command.abandon()


@pytest.fixture
def command_line(tmp_path: Path) -> Iterator[CommandLine]:
    """Return what runs `mercuria` in a process of its own."""
    line = CommandLine(tmp_path)
    yield line
    line.clear()
    for process in survivors(tmp_path):
        process.kill()


@pytest.fixture
def silent_proxy() -> Iterator[str]:
    """Return the address of a proxy that takes every connection and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture(scope="package")
def said() -> list[str]:
    """Return what the shared stack has said so far."""
    return []


@pytest.fixture(scope="package")
def stack(tmp_path_factory: pytest.TempPathFactory, said: list[str]) -> Iterator[Stack]:
    """Return a started stack with one worker, shared by all tests of this folder that do no lasting harm."""
    # A name that shells, URLs and class paths all trip over when it is not quoted.
    data_dir = tmp_path_factory.mktemp("stack") / "Zoë's data"
    with Stack(
        data_dir, workers=1, worker_command=READY_WORKER, on_progress=said.append, environ=clean_environ()
    ) as started:
        yield started
