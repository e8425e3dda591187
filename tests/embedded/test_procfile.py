"""The Procfile as honcho runs it, and `mercuria join`, which its workers are."""

import json
import re
import signal
import sys
import urllib.request
from pathlib import Path

import pytest

from mercuria.embedded.ports import is_free
from tests.embedded.conftest import MERCURIA, CommandLine, clean_environ, only, survivors

ROOT = Path(__file__).parents[2]
HONCHO = str(Path(sys.executable).with_name("honcho"))


# Eight programs start, each for itself.
@pytest.mark.timeout(300)
def test_honcho_runs_the_procfile_with_two_workers_until_ctrl_c(tmp_path: Path) -> None:
    line = CommandLine(ROOT)
    where = {"MERCURIA_DATA_DIR": str(tmp_path)}
    try:
        honcho = line.start(HONCHO, "start", "-c", "worker=2", environ=clean_environ() | where)
        ready = honcho.wait_for("The servers are ready.", timeout_s=120)
        # Nobody else can take it before the first worker comes.
        assert not is_free(int(ready.rpartition(":")[2]))
        said = [honcho.wait_for("is ready at http://") for _ in range(2)]
        found = [
            re.search(r"worker\.(\d) +\| Worker-\1 is ready at (http://[\d.:]+)$", each) for each in said
        ]
        urls = {match and match[2] for match in found}
        assert len(urls) == 1 and None not in urls, said
        with urllib.request.urlopen(f"{urls.pop()}/health/ready", timeout=10) as answer:
            assert answer.status == 200
        code, status = line.run("status", "--json", environ=clean_environ() | where)
        assert code == 0, status
        parts = {part["name"]: part for part in json.loads(status)}
        assert parts.keys() == {"up", "kafka", "postgres", "redis", "worker-1", "worker-2"}
        assert len({part["address"] for part in parts.values()}) == 6
        honcho.send(signal.SIGINT)
        assert honcho.finish() == 128 + signal.SIGINT
        assert survivors(tmp_path) == []
        assert list(tmp_path.glob("*.pid")) == []
        # No colours or cursors of a terminal, and nothing but what was asked to be said.
        assert not [each for each in honcho.said if "\x1b" in each or "Traceback" in each]
    finally:
        line.clear()
        for process in survivors(tmp_path):
            process.kill()


@pytest.mark.parametrize(
    ("workers", "arguments", "why"),
    [
        (1, (), r"runs one worker, which shares its port with no other: start it with `--workers 0`"),
        (2, ("--number", "2"), r"Worker-2 of .* runs already \(process \d+\)"),
    ],
)
def test_a_worker_that_cannot_join_is_told_why(
    tmp_path: Path, command_line: CommandLine, workers: int, arguments: tuple[str, ...], why: str
) -> None:
    up = command_line.up(tmp_path, workers, environ=only("redis"))
    up.wait_for("Mercuria is ready")
    code, said = command_line.run("join", "--data-dir", str(tmp_path), *arguments)
    assert code == 2 and re.search(why, said), said
    up.send(signal.SIGTERM)
    assert up.finish() == 0


def test_a_worker_that_waits_for_servers_can_be_stopped(tmp_path: Path, command_line: CommandLine) -> None:
    worker = command_line.start(*MERCURIA, "join", "--data-dir", str(tmp_path))
    worker.wait_for("Waiting for the servers of `mercuria up`")
    worker.send(signal.SIGINT)
    assert worker.finish() == -signal.SIGINT
    assert worker.said == [f"Waiting for the servers of `mercuria up` in {tmp_path}."]
