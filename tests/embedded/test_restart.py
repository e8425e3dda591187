"""What a later start finds of an earlier one: its ports, its data, and sometimes its processes."""

import os
import signal
import subprocess
from pathlib import Path

import psutil
import psycopg2
import pytest
import redis
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from mercuria.config import SettingError, read_stack_env
from mercuria.embedded import processes
from mercuria.embedded.directory import DataDirectory
from mercuria.embedded.errors import StackError
from mercuria.embedded.orphans import stop_orphans
from mercuria.embedded.stack import Stack
from mercuria.embedded.status import PartStatus, State, look
from tests.embedded.conftest import (
    NOWHERE,
    READY_WORKER,
    CommandLine,
    clean_environ,
    eventually,
    only,
    survivors,
)


async def write_everywhere(env: dict[str, str]) -> None:
    """Leave one thing in each server."""
    admin = AIOKafkaAdminClient(bootstrap_servers=env["MERCURIA_KAFKA"])
    await admin.start()
    await admin.create_topics([NewTopic("kept", num_partitions=1, replication_factor=1)])
    await admin.close()
    producer = AIOKafkaProducer(bootstrap_servers=env["MERCURIA_KAFKA"], acks="all")
    await producer.start()
    await producer.send_and_wait("kept", b"record")
    await producer.stop()
    with psycopg2.connect(env["MERCURIA_DATABASE_OWNER"]) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE kept AS SELECT 'row' AS what")
        cursor.execute("GRANT SELECT ON kept TO mercuria_app")
    connection.close()
    redis.Redis.from_url(env["MERCURIA_REDIS"]).set("kept", "value")


async def read_everywhere(env: dict[str, str]) -> list[object]:
    """Return what `write_everywhere` left."""
    consumer = AIOKafkaConsumer(
        "kept", bootstrap_servers=env["MERCURIA_KAFKA"], auto_offset_reset="earliest", request_timeout_ms=5000
    )
    await consumer.start()
    record = await consumer.getone()
    await consumer.stop()
    with psycopg2.connect(env["MERCURIA_DATABASE"]) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT what FROM kept")
        row = cursor.fetchone()
    connection.close()
    return [record.value, row, redis.Redis.from_url(env["MERCURIA_REDIS"]).get("kept")]


async def test_a_second_start_keeps_ports_and_data_also_in_a_shell_that_sourced_stack_env(
    tmp_path: Path,
) -> None:
    with Stack(tmp_path, environ=clean_environ()) as stack:
        first = dict(stack.env)
        await write_everywhere(first)
    assert survivors(tmp_path) == []
    assert {part.state for part in look(DataDirectory(tmp_path))} == {State.STOPPED}
    with Stack(tmp_path, environ=clean_environ() | read_stack_env(tmp_path)) as stack:
        assert stack.env == first
        assert [server.name for server in stack.servers] == ["kafka", "postgres", "redis"]
        assert await read_everywhere(first) == [b"record", ("row",), b"value"]
    assert survivors(tmp_path) == []


def test_a_data_directory_with_one_role_gets_the_other_one_and_keeps_all(tmp_path: Path) -> None:
    with Stack(tmp_path, environ=only("database")) as stack:
        with psycopg2.connect(stack.postgres.owner_url) as connection, connection.cursor() as cursor:
            cursor.execute("CREATE TABLE kept AS SELECT 'row' AS what")
        connection.close()
    old = stack.postgres
    passwords = old.passfile.read_text().splitlines(keepends=True)
    old.passfile.write_text(passwords[0])
    old._run(
        old.account(),
        "postgres",
        "--single",
        "-D",
        str(old.data),
        "postgres",
        script="DROP ROLE mercuria_app;\n",
    )
    with Stack(tmp_path, environ=only("database")) as stack:
        assert stack.postgres.passfile.read_text().splitlines(keepends=True)[0] == passwords[0]
        psycopg2.connect(stack.postgres.url).close()
        with psycopg2.connect(stack.postgres.owner_url) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT what FROM kept")
            assert cursor.fetchall() == [("row",)]
        connection.close()


def test_a_port_that_another_program_took_meanwhile_is_left_to_it(tmp_path: Path) -> None:
    with Stack(tmp_path, environ=only("redis")) as stack:
        before = stack.redis.port
    other = tmp_path / "other"
    (tmp_path / "other").mkdir()
    (other / "ports.json").write_text(f'{{"redis": {before}}}')
    with Stack(other, environ=only("redis")) as holds:
        assert holds.redis.port == before
        with Stack(tmp_path, environ=only("redis")) as stack:
            assert stack.redis.port != before
            assert redis.Redis.from_url(stack.env["MERCURIA_REDIS"]).ping()


def test_what_is_elsewhere_stays_elsewhere_at_every_start(tmp_path: Path) -> None:
    for _ in range(2):
        with Stack(tmp_path, environ=clean_environ() | NOWHERE) as stack:
            assert stack.servers == [] and NOWHERE.items() <= stack.env.items()
            assert {part.name: part.state for part in look(DataDirectory(tmp_path))} == {
                "up": State.UP,
                "kafka": State.ELSEWHERE,
                "postgres": State.ELSEWHERE,
                "redis": State.ELSEWHERE,
            }
        with pytest.raises(StackError, match=r"^Kafka is not part of this stack"):
            _ = stack.kafka


def test_a_killed_up_leaves_orphans_which_the_next_start_clears(
    tmp_path: Path, command_line: CommandLine
) -> None:
    data_dir = tmp_path / "data"
    environ = only("database", "redis")
    up = command_line.up(data_dir, environ=environ)
    up.wait_for("Mercuria is ready")
    up.send(signal.SIGKILL)
    up.finish()
    states = {part.name: part.state for part in look(DataDirectory(data_dir))}
    assert states["up"] is State.STOPPED
    assert {states["postgres"], states["redis"], states["worker-1"]} == {State.ORPHANED}
    orphans = {process.pid for process in survivors(data_dir)}
    ports = (data_dir / "ports.json").read_bytes()
    # Another name of the same directory.
    alias = tmp_path / "alias"
    alias.symlink_to(data_dir)
    said: list[str] = []
    with Stack(
        alias, environ=environ, workers=1, worker_command=READY_WORKER, on_progress=said.append
    ) as stack:
        left = [sentence for sentence in said if "An earlier `mercuria up` was killed" in sentence]
        assert len(left) == 3
        assert {process.pid for process in survivors(data_dir)}.isdisjoint(orphans)
        assert all(part.is_ready() for part in stack.parts)
    assert (data_dir / "ports.json").read_bytes() == ports
    assert survivors(data_dir) == []


def test_down_clears_orphans_too(tmp_path: Path, command_line: CommandLine) -> None:
    up = command_line.up(tmp_path, environ=only("redis"))
    up.wait_for("Mercuria is ready")
    up.send(signal.SIGKILL)
    up.finish()
    code, said = command_line.run("down", "--data-dir", str(tmp_path))
    assert code == 0 and said.endswith("Stopped.")
    assert survivors(tmp_path) == []


def test_an_orphan_whose_pid_was_never_written_is_found_by_its_mark(tmp_path: Path) -> None:
    orphan = subprocess.Popen(
        ["sleep", "600"], env={"PATH": os.defpath} | processes.mark(tmp_path, "kafka"), start_new_session=True
    )
    try:
        eventually(lambda: survivors(tmp_path))
        assert stop_orphans(DataDirectory(tmp_path), lambda _: None) == ["kafka"]
        assert orphan.wait(5) == -signal.SIGTERM
    finally:
        orphan.kill()


def test_a_stranger_with_the_pid_of_an_old_part_is_left_alone(tmp_path: Path) -> None:
    stranger = subprocess.Popen(["sleep", "600"])
    try:
        processes.write_pid(tmp_path / "redis.pid", stranger.pid)
        with Stack(tmp_path, environ=only("redis")):
            pass
        assert stranger.poll() is None
        processes.write_pid(tmp_path / "up.pid", stranger.pid)
        assert DataDirectory(tmp_path).up() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_lone_worker_is_seen_at_the_http_port_after_a_start_with_several(tmp_path: Path) -> None:
    environ = clean_environ() | NOWHERE
    with Stack(tmp_path, environ=environ, workers=2, worker_command=READY_WORKER) as stack:
        assert len({worker.port for worker in stack.workers} | {int(stack.env["MERCURIA_HTTP_PORT"])}) == 3
    with Stack(tmp_path, environ=environ, workers=1, worker_command=READY_WORKER) as stack:
        assert stack.workers[0].port == int(stack.env["MERCURIA_HTTP_PORT"])
        parts = {part.name: part for part in look(DataDirectory(tmp_path))}
        assert parts["worker-1"].state is State.UP


def test_status_does_not_call_up_what_is_still_starting(tmp_path: Path) -> None:
    seen: list[dict[str, PartStatus]] = []

    def see(_: object) -> None:
        seen.append({part.name: part for part in look(DataDirectory(tmp_path))})

    with Stack(tmp_path, environ=only("redis"), on_progress=see, prepare=see):
        see(None)
    # Before Redis runs, when it is ready, before the workers, and when all is ready.
    assert [parts["up"].state for parts in seen] == [State.STARTING, State.STARTING, State.STARTING, State.UP]
    assert [parts["redis"].state for parts in seen] == [State.STARTING, State.UP, State.UP, State.UP]


def test_partitions_are_kept_for_life(tmp_path: Path) -> None:
    environ = clean_environ() | NOWHERE
    with Stack(tmp_path, environ=environ, partitions=3) as stack:
        assert stack.env["MERCURIA_PARTITIONS"] == "3"
    with Stack(tmp_path, environ=environ) as stack:
        assert stack.env["MERCURIA_PARTITIONS"] == "3"
    refusal = (
        "^MERCURIA_PARTITIONS=4 cannot be used: .* was made with 3 partitions and keeps them; 4 need a data"
    )
    with pytest.raises(StackError, match=refusal):
        Stack(tmp_path, environ=environ | {"MERCURIA_PARTITIONS": "4"}).start()


def test_a_damaged_stack_env_is_named_and_that_of_another_directory_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "stack.env").write_text("MERCURIA_PARTITIONS=many\n")
    environ = clean_environ() | NOWHERE | {"MERCURIA_DATA_DIR": str(tmp_path)}
    with Stack(tmp_path / "another", environ=environ):
        pass
    with pytest.raises(SettingError, match=r"^MERCURIA_PARTITIONS='many' cannot be used"):
        Stack(tmp_path, environ=environ).start()


def test_a_failed_start_gives_the_directory_free(tmp_path: Path) -> None:
    (tmp_path / "up.pid").mkdir()
    stack = Stack(tmp_path, environ=clean_environ() | NOWHERE)
    with pytest.raises((StackError, OSError)):
        stack.start()
    (tmp_path / "up.pid").rmdir()
    with Stack(tmp_path, environ=clean_environ() | NOWHERE):
        assert DataDirectory(tmp_path).is_taken()


def test_variables_of_libpq_meant_for_another_server_do_no_harm(
    tmp_path: Path, command_line: CommandLine
) -> None:
    meant_for_another = {"PGPASSWORD": "wrong", "PGSSLMODE": "require", "PGOPTIONS": "-c nonsense=1"}
    up = command_line.up(tmp_path, environ=only("database") | meant_for_another)
    up.wait_for("Mercuria is ready", timeout_s=20)
    worker = psutil.Process(int((tmp_path / "worker-1.pid").read_text()))
    assert meant_for_another.keys().isdisjoint(worker.environ())
    up.send(signal.SIGTERM)
    assert up.finish() == 0
