"""What the stack does when a part dies, freezes, or cannot live."""

import signal
import sys
import threading
from pathlib import Path

import psutil
import pytest
import redis

from mercuria.embedded.errors import StackError
from mercuria.embedded.logs import MAX_BYTES
from mercuria.embedded.stack import Stack
from mercuria.embedded.supervisor import backoff_s
from tests.embedded.conftest import NOWHERE, READY_WORKER, clean_environ, eventually, only, survivors


@pytest.mark.parametrize("name", ["kafka", "postgres", "redis", "worker-1"])
def test_a_killed_part_is_started_again_at_its_port(stack: Stack, said: list[str], name: str) -> None:
    part = next(part for part in stack.parts if part.name == name)
    pid, port, already = part.pid, part.port, len(said)
    assert pid is not None
    psutil.Process(pid).kill()
    eventually(lambda: any("is ready again" in sentence for sentence in said[already:]))
    ended = next(sentence for sentence in said[already:] if "ended" in sentence)
    assert ended.startswith(f"{part.title} ended (signal SIGKILL); the last lines of {part.log.path}")
    assert ended.splitlines()[1:] == [
        f"    {line}" for line in ended.replace("\n    ", "\n").splitlines()[1:]
    ]
    assert part.is_ready() and part.pid != pid and part.port == port


def test_a_log_that_cannot_be_rotated_does_not_end_supervision(stack: Stack, said: list[str]) -> None:
    in_the_way = stack.redis.log.path.with_name("redis.log.1")
    in_the_way.mkdir()
    with open(stack.redis.log.path, "ab") as log:
        log.truncate(MAX_BYTES + 1)
    watcher = next(thread for thread in threading.enumerate() if thread.name == "watch-redis")
    watcher.join(1)
    assert watcher.is_alive()
    already = len(said)
    stack.redis.kill()
    eventually(lambda: any("Redis is ready again" in sentence for sentence in said[already:]))
    in_the_way.rmdir()
    eventually(in_the_way.is_file)


def test_a_frozen_server_does_not_answer_and_is_not_ended(stack: Stack) -> None:
    pid = stack.redis.pid
    stack.redis.suspend()
    assert not stack.redis.is_ready()
    stack.redis.resume()
    eventually(stack.redis.is_ready)
    assert stack.redis.pid == pid


def test_one_more_worker_has_its_own_port_and_can_be_stopped(stack: Stack) -> None:
    worker = stack.add_worker(supervise=False)
    assert worker.name == "worker-2" and worker.is_ready()
    assert worker.port != stack.workers[0].port
    worker.stop()
    assert not worker.is_alive() and not (stack.directory.path / "worker-2.pid").exists()


def test_a_worker_that_ends_without_supervision_ends_the_start(tmp_path: Path) -> None:
    command = (sys.executable, "-c", "import sys; sys.exit('No licence to work.')")
    with pytest.raises(StackError, match=r"(?s)^Worker-1 ended \(exit code 1\).*No licence to work\."):
        Stack(
            tmp_path, workers=1, supervise=False, worker_command=command, environ=clean_environ() | NOWHERE
        ).start()


def test_the_stack_stops_although_a_server_is_frozen(tmp_path: Path) -> None:
    with Stack(tmp_path, environ=only("database")) as stack:
        stack.postgres.suspend()
    assert survivors(tmp_path) == []
    log = "\n".join(stack.postgres.last_log_lines(40))
    assert "received fast shutdown request" in log and "database system is shut down" in log


def test_a_part_that_is_killed_while_frozen_leaves_nothing(tmp_path: Path) -> None:
    with Stack(tmp_path, environ=only("database"), supervise=False) as stack:
        stack.postgres.suspend()
        stack.postgres.kill()
        eventually(lambda: survivors(tmp_path) == [], timeout_s=5)


def test_servers_are_stopped_although_the_directory_has_become_unwritable(tmp_path: Path) -> None:
    stack = Stack(tmp_path, environ=only("redis"), workers=1, worker_command=READY_WORKER)
    stack.start()
    # The pid file cannot be removed, as on a file system that was made read-only after an error.
    pid_file = tmp_path / "worker-1.pid"
    pid_file.unlink()
    pid_file.mkdir()
    with pytest.raises(OSError, match="worker-1"):
        stack.stop()
    assert survivors(tmp_path) == []


def test_an_interrupted_start_leaves_nothing(tmp_path: Path) -> None:
    stack = Stack(tmp_path, environ=only("database", "redis"))
    stack.interrupt()
    with pytest.raises(StackError, match="was stopped while it was starting"):
        stack.start()
    assert survivors(tmp_path) == []
    with stack:
        assert redis.Redis.from_url(stack.env["MERCURIA_REDIS"]).ping()
    assert survivors(tmp_path) == []


def test_the_first_crash_costs_no_wait_and_later_ones_ever_more() -> None:
    waits = [backoff_s(crashes) for crashes in range(1, 8)]
    assert waits[0] == 0 and waits == sorted(waits) and waits[-1] <= 5


def test_how_a_part_ended_is_said_with_the_name_of_the_signal(tmp_path: Path) -> None:
    environ = clean_environ() | NOWHERE
    with Stack(tmp_path, environ=environ, supervise=False, workers=1, worker_command=READY_WORKER) as stack:
        worker = stack.workers[0]
        psutil.Process(worker.pid).send_signal(signal.SIGUSR1)
        eventually(lambda: not worker.is_alive())
        assert worker.ending() == "signal SIGUSR1"
