"""What a command starts ends with it, whatever ends the command."""

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from mercuria.embedded.processes import MARK, is_running
from tests.embedded.conftest import HARNESS, Command, CommandLine, clean_environ, eventually, survivors

BENCH = ("bench", "http", "--seconds", "60", "--wallets", "10", "--connections", "2", "--scale", "1")
CHAOS = ("chaos", "kill-workers", "--commands", "1000000", "--rate", "100", "--workers", "1")


@pytest.fixture
def line(tmp_path: Path) -> Iterator[CommandLine]:
    """Return what runs `mercuria` in a process of its own, and ends what is left."""
    commands = CommandLine(tmp_path)
    yield commands
    commands.clear()
    for process in survivors(tmp_path):
        process.kill()


def start(line: CommandLine, tmp_path: Path, *words: str) -> Command:
    """Start a command whose stack is below `tmp_path`."""
    # As a shell starts it; pytest may have been started with signals ignored, and its children inherit that.
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    return line.start(*HARNESS, *words, environ=clean_environ() | {"TMPDIR": str(tmp_path)})


def parts(tmp_path: Path) -> set[str]:
    """Return the names of the parts that have started."""
    # Not by `rglob`: directories come and go below the data directory while PostgreSQL makes its own.
    return {
        file.stem
        for pattern in ("mercuria-*/*.pid", "mercuria-*/data/*.pid")
        for file in tmp_path.glob(pattern)
    }


def running(tmp_path: Path) -> list[str]:
    """Return what runs for a data directory below `tmp_path`, or inside it."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            _, _, where = process.environ().get(MARK, "").partition("@")
            is_ours = where != "" and Path(where).is_relative_to(tmp_path)
            if (is_ours or Path(process.cwd()).is_relative_to(tmp_path)) and is_running(process):
                found.append(" ".join(process.cmdline()))
    return found


def test_sigterm_ends_all_of_a_benchmark_also_when_it_comes_again(line: CommandLine, tmp_path: Path) -> None:
    bench = start(line, tmp_path, *BENCH)
    eventually(lambda: {"kafka", "postgres", "redis", "worker-1"} <= parts(tmp_path), timeout_s=90)
    assert running(tmp_path)
    bench.send(signal.SIGTERM)
    eventually(lambda: "worker-1" not in parts(tmp_path) or bench.process.poll() is not None)
    bench.send(signal.SIGTERM)
    bench.send(signal.SIGINT)
    assert bench.finish() == 128 + signal.SIGTERM, bench.said
    assert running(tmp_path) == []
    assert "Traceback" not in "\n".join(bench.said)
    assert [path for path in tmp_path.iterdir() if path.name.startswith("mercuria-")] == []


def test_a_terminal_that_closes_while_a_stack_starts_ends_it(line: CommandLine, tmp_path: Path) -> None:
    chaos = start(line, tmp_path, *CHAOS)
    eventually(lambda: parts(tmp_path) - {"up"}, timeout_s=60)
    assert running(tmp_path)
    chaos.send(signal.SIGHUP)
    assert chaos.finish(timeout_s=30) == 128 + signal.SIGHUP, chaos.said
    assert running(tmp_path) == []
    assert "Traceback" not in "\n".join(chaos.said)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_chaos_run_that_is_ended_under_load_leaves_nothing_running(
    line: CommandLine, tmp_path: Path, number: int
) -> None:
    chaos = start(line, tmp_path, *CHAOS)
    chaos.wait_for("Worker-1 is ready", timeout_s=120)
    assert running(tmp_path)
    os.kill(chaos.process.pid, number)
    assert chaos.finish() == (-number if number == signal.SIGKILL else 128 + number), chaos.said
    # A process that nothing but the end of the command has set off does it.
    eventually(lambda: running(tmp_path) == [], timeout_s=90)
    assert "Traceback" not in "\n".join(chaos.said)
