"""`mercuria up`, `status` and `down` as commands in processes of their own."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import psutil
import pytest

from mercuria.embedded import processes
from tests.embedded.conftest import (
    MERCURIA,
    NOWHERE,
    UP_READY,
    CommandLine,
    clean_environ,
    eventually,
    only,
    survivors,
)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_everything(tmp_path: Path, command_line: CommandLine, number: signal.Signals) -> None:
    up = command_line.up(tmp_path, workers=2, environ=only("redis"))
    up.wait_for("Mercuria is ready at http://127.0.0.1:")
    assert len(survivors(tmp_path)) >= 3
    up.send(number)
    assert up.finish() == 0
    assert up.said[-2:] == ["Stopping.", "Stopped."]
    assert survivors(tmp_path) == []
    assert list(tmp_path.glob("*.pid")) == []


def test_ctrl_c_of_a_terminal_during_the_first_start_is_no_failure(
    tmp_path: Path, command_line: CommandLine
) -> None:
    up = command_line.up(tmp_path, environ=only("database"))
    up.wait_for("PostgreSQL is starting.")
    eventually(lambda: (tmp_path / "postgres.new" / "PG_VERSION").exists())
    # A terminal sends it to the whole process group.
    os.killpg(up.process.pid, signal.SIGINT)
    assert up.finish() == 0
    assert up.said[-1] == "Stopped."
    assert survivors(tmp_path) == []


def test_status_and_down_from_another_terminal(tmp_path: Path, command_line: CommandLine) -> None:
    where = ("--data-dir", str(tmp_path))
    code, said = command_line.run("status", *where)
    assert (code, said) == (3, f"Mercuria is stopped in {tmp_path}.")
    up = command_line.up(tmp_path, environ=only("redis"))
    up.wait_for("Mercuria is ready")
    code, said = command_line.run("status", *where, "--json")
    parts = {part["name"]: part for part in json.loads(said)}
    assert code == 0
    assert {name: part["state"] for name, part in parts.items()} == {
        "up": "up",
        "kafka": "elsewhere",
        "postgres": "elsewhere",
        "redis": "up",
        "worker-1": "up",
    }
    assert parts["up"]["pid"] == up.process.pid
    code, said = command_line.run("status", *where)
    assert code == 0 and "worker-1" in said and "elsewhere" in said
    code, said = command_line.run("down", *where)
    assert (code, said.splitlines()) == (
        0,
        [f"Stopping `mercuria up` (process {up.process.pid}).", "Stopped."],
    )
    assert up.finish() == 0
    assert survivors(tmp_path) == []
    code, said = command_line.run("down", *where)
    assert (code, said) == (0, f"Nothing runs in {tmp_path}.")


def test_down_where_nothing_was_ever_started_makes_nothing(tmp_path: Path, command_line: CommandLine) -> None:
    absent = tmp_path / "absent"
    code, said = command_line.run("down", "--data-dir", str(absent))
    assert (code, said) == (0, f"Nothing runs in {absent}.")
    assert not absent.exists()


def test_a_second_up_in_the_same_directory_names_the_first(tmp_path: Path, command_line: CommandLine) -> None:
    up = command_line.up(tmp_path, environ=only("redis"))
    up.wait_for("Mercuria is ready")
    code, said = command_line.run("up", "--data-dir", str(tmp_path))
    assert (code, said) == (
        2,
        f"mercuria: Another `mercuria up` (process {up.process.pid}) runs in {tmp_path};"
        f" stop it with `mercuria down --data-dir {tmp_path}`, or choose another --data-dir.",
    )
    assert processes.read_pid(tmp_path / "up.pid") == up.process.pid
    up.send(signal.SIGTERM)
    assert up.finish() == 0


def test_a_killed_server_is_said_with_its_last_lines_and_started_again(
    tmp_path: Path, command_line: CommandLine
) -> None:
    up = command_line.up(tmp_path, environ=only("redis"))
    up.wait_for("Mercuria is ready")
    psutil.Process(int((tmp_path / "redis.pid").read_text())).kill()
    up.wait_for("Redis ended (signal SIGKILL); the last lines of")
    up.wait_for("Ready to accept connections")
    up.wait_for("Redis is ready again.")
    up.send(signal.SIGINT)
    assert up.finish() == 0


def test_a_worker_that_always_ends_ends_up_with_a_sentence(tmp_path: Path, command_line: CommandLine) -> None:
    up = command_line.up(tmp_path, environ=clean_environ() | NOWHERE | {"WORKER_ENDS": "1"})
    assert up.finish() == 2
    assert sum(line.startswith("Worker-1 ended (exit code 1); the last lines of") for line in up.said) == 6
    last = next(line for line in reversed(up.said) if line.startswith("mercuria: "))
    assert last.startswith(
        "mercuria: Worker-1 ended 6 times within 60 seconds and was given up; the last lines"
    )
    assert up.said[-1].strip() == "This worker was told to end."
    assert survivors(tmp_path) == []


def test_nohup_keeps_it_running_when_the_terminal_closes(tmp_path: Path, command_line: CommandLine) -> None:
    up = command_line.start("nohup", *UP_READY, str(tmp_path), environ=only("redis"))
    up.wait_for("Mercuria is ready")
    up.send(signal.SIGHUP)
    psutil.Process(int((tmp_path / "redis.pid").read_text())).kill()
    up.wait_for("Redis is ready again.")
    up.send(signal.SIGTERM)
    assert up.finish() == 0


def test_it_goes_on_when_nobody_reads_what_it_says(tmp_path: Path, command_line: CommandLine) -> None:
    process = subprocess.Popen(
        [*UP_READY, str(tmp_path)], env=only("redis"), stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        while "Mercuria is ready" not in process.stdout.readline():
            assert process.poll() is None
        process.stdout.close()
        for _ in range(2):
            pid = processes.read_pid(tmp_path / "redis.pid")
            psutil.Process(pid).kill()
            eventually(lambda pid=pid: processes.read_pid(tmp_path / "redis.pid") != pid, timeout_s=10)
            eventually(lambda: processes.find_part(tmp_path, "redis"))
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.terminate()
        process.wait()
    assert survivors(tmp_path) == []


def test_the_url_that_is_said_is_where_it_answers(tmp_path: Path, command_line: CommandLine) -> None:
    up = command_line.start(
        sys.executable, UP_READY[1], str(tmp_path), environ=only() | {"MERCURIA_HTTP_HOST": "127.0.0.2"}
    )
    assert "http://127.0.0.2:" in up.wait_for("Mercuria is ready")
    up.send(signal.SIGTERM)
    assert up.finish() == 0


def test_mercuria_itself_from_up_to_down(tmp_path: Path, command_line: CommandLine) -> None:
    where = ("--data-dir", str(tmp_path))
    up = command_line.start(*MERCURIA, "up", *where)
    url = up.wait_for("Mercuria is ready at ", timeout_s=120).rpartition(" ")[2]
    with urllib.request.urlopen(f"{url}/health/ready", timeout=10) as answer:
        assert answer.status == 200
    code, said = command_line.run("status", *where, "--json")
    parts = {part["name"]: part for part in json.loads(said)}
    assert code == 0
    assert {part["state"] for part in parts.values()} == {"up"}
    assert parts.keys() == {"up", "kafka", "postgres", "redis", "worker-1"}
    assert f"http://{parts['worker-1']['address']}" == url
    code, _ = command_line.run("down", *where)
    assert code == 0 and up.finish() == 0
    assert survivors(tmp_path) == []
