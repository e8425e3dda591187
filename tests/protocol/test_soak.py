"""`make soak`: what is right stays right under load and faults, and a planted bug is reported while there is load."""

import json
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.embedded.conftest import HARNESS, clean_environ, eventually, survivors
from tests.harness.soak.run import Soak
from tests.harness.stacks import UNLIMITED_LOGINS, fresh_stack
from tests.protocol.test_kills import PLANTED_WORKER

VIOLATION = "VIOLATION: "


@pytest.fixture
def soaking(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Return a soak of an hour; its messages are in `messages.txt`."""
    with (tmp_path / "messages.txt").open("w") as progress:
        process = subprocess.Popen(
            [
                *HARNESS,
                "soak",
                "--json",
                "--every-s=2",
                "--check-every-s=2",
                "--data-dir",
                str(tmp_path / "data"),
            ],
            env=clean_environ(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=progress,
            text=True,
        )
    yield process
    if process.poll() is None:
        process.kill()
    for survivor in survivors(tmp_path / "data"):
        survivor.kill()


@pytest.mark.timeout(420)
def test_a_soak_that_is_interrupted_audits_what_was_done_and_leaves_nothing(
    soaking: subprocess.Popen[str], tmp_path: Path
) -> None:
    progress = tmp_path / "messages.txt"
    eventually(lambda: "All is answered again" in progress.read_text() or soaking.poll() is not None, 200)
    soaking.send_signal(signal.SIGINT)
    out, _ = soaking.communicate(timeout=200)
    assert soaking.returncode == 0, progress.read_text()
    figures = json.loads(out)
    assert figures["violations"] == [] and figures["errors"] == []
    assert sum(figures["faults"].values()) >= 1
    assert figures["commands"] > 500 and figures["requests"] > 50 and figures["latency"]["p99_ms"] > 0
    assert figures["checks"].keys() == {"log and sums", "ledger verify", "reconcile"}
    assert figures["memory"].keys() == {"kafka", "postgres", "redis", "worker-1", "worker-2"}
    assert all(grown["last_mib"] > 0 for grown in figures["memory"].values())
    assert figures["audit"]["commands"] > figures["commands"] and figures["stages"]["entries"] > 0
    assert survivors(tmp_path / "data") == []


@pytest.mark.timeout(420)
async def test_a_planted_bug_is_reported_while_there_is_load(tmp_path: Path) -> None:
    seed = secrets.randbelow(2**32)
    print(f"seed {seed}")
    messages: list[str] = []

    def collect(sentence: str) -> None:
        print(sentence)
        messages.append(sentence)
        if sentence.startswith(VIOLATION):
            soak.end()

    command = (sys.executable, str(PLANTED_WORKER), "no-receipts")
    with fresh_stack(tmp_path, 2, print, UNLIMITED_LOGINS, worker_command=command) as stack:
        soak = Soak(stack, seed=seed, minutes=60, every_s=None, check_every_s=1, echo=collect)
        outcome = await soak.run()
    first = next(sentence for sentence in messages if sentence.startswith(VIOLATION))
    assert messages.index(first) < messages.index(
        "The load is over; when the stack is idle, everything is audited."
    )
    assert outcome.violation_count > 0 and f"{VIOLATION}{outcome.violations[0]}" == first
    assert not outcome.is_clean and outcome.load_s < 3600
