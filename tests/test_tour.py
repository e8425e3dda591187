"""The tour of the README and of the quickstart runs as printed."""

import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.embedded.conftest import Command, CommandLine, clean_environ, survivors

ROOT = Path(__file__).resolve().parents[1]
README, QUICKSTART = ROOT / "README.md", ROOT / "docs" / "quickstart.md"

VOLATILE = (
    (r"127\.0\.0\.1:\d+", "ADDRESS"),
    (r"\d+ min \d+ s", "UPTIME"),
    (r"\d+ MiB", "MEMORY"),
    (r"\d+\.\d s \([\d,]+ commands/s\)", "SPEED"),
    (r"process \d+", "process PID"),
    (r"│ \d+ │", "│ PID │"),
    (r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME"),
    # Which of the loaded wallets is the oldest is chance. The ids in what is sent to Kafka are as they are there.
    (r"(?!5a7d1c52)[0-9a-f]{8}-[0-9a-f]{4}-[458][0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}", "ID"),
    (r"-?\d+\.\d\d CZK", "AMOUNT"),
    (r" +", " "),
)
"""What differs from run to run."""

MARK = "-- the next step --"


class Step(NamedTuple):
    """A block of commands in a page, and the output that is shown below it."""

    commands: str
    shown: list[str]


def steps(page: Path) -> list[Step]:
    """Return a page's part of the tour: the blocks marked `sh`, each with the block marked `text` that follows it."""
    text = page.read_text("utf-8")
    found = re.findall(r"^```sh\n(.*?)^```\n+```text\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert len(found) == len(re.findall(r"^```sh$", text, re.MULTILINE)) > 0, "every step shows its output"
    return [Step(commands.strip(), shown.splitlines()) for commands, shown in found]


def as_ever(line: str) -> str:
    """Return a line without what differs from run to run."""
    for pattern, word in VOLATILE:
        line = re.sub(pattern, word, line)
    return line.strip()


def assert_shown(step: Step, output: list[str]) -> None:
    """Assert that the output has the lines that the page shows, in that order; it may have others between them."""
    lines = iter([as_ever(line) for line in output])
    for line in step.shown:
        assert as_ever(line) in lines, f"{step.commands}\ndoes not print {line!r}, but\n" + "\n".join(output)


def follow(steps: Sequence[Step], clone: Path) -> None:
    """Do steps in one shell, as a reader does, and compare what they print."""
    script = "".join(f"{step.commands}\nprintf '\\n{MARK}\\n'\n" for step in steps)
    outcome = subprocess.run(
        ["bash", "-e", "-c", script],
        cwd=clone,
        env=clean_environ() | {"COLUMNS": "120"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    *outputs, rest = outcome.stdout.split(f"\n{MARK}\n")
    for step, output in zip(steps, outputs, strict=False):
        assert_shown(step, output.splitlines())
    assert outcome.returncode == 0, f"{steps[len(outputs)].commands}\nended with {outcome.returncode}: {rest}"


def twice(step: Step) -> list[Step]:
    """Return a step as often as it is done: some say that they can be done again, and change nothing then."""
    return [step] * (1 + ("<<'END'" in step.commands))


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Return a directory that has what the tour needs of a clone after `make install`."""
    (tmp_path / ".venv").symlink_to(sys.prefix)
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    return tmp_path


@pytest.fixture
def running(clone: Path) -> Iterator[Command]:
    """Return what `make up` starts."""
    command_line = CommandLine(clone)
    yield command_line.start(".venv/bin/mercuria", "up")
    command_line.clear()
    for process in survivors(clone):
        process.kill()


@pytest.mark.timeout(360)
def test_the_tour_runs_as_printed(clone: Path, running: Command) -> None:
    first, *rest = [*steps(README), *steps(QUICKSTART)]
    assert first.commands == "make up", "the test does what `make up` does after `make install`"
    running.wait_for("Mercuria is ready at ", timeout_s=120)
    assert_shown(first, running.said)
    follow([again for step in rest for again in twice(step)], clone)
    assert running.finish() == 0
    assert (clone / "data" / "stack.env").exists(), "the data stays"


def test_make_up_is_mercuria_up() -> None:
    assert re.search(
        r"^up: install .*\n\t@exec \$\(BIN\)/mercuria up$", (ROOT / "Makefile").read_text(), re.M
    )
