"""The three servers, as clients and the operating system see them."""

import os
import re
import shlex
import stat
import subprocess
from pathlib import Path

import psutil
import psycopg2
import pytest
import redis
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from mercuria.config import read_stack_env
from mercuria.embedded import processes
from mercuria.embedded.stack import Stack
from mercuria.embedded.status import State, look
from tests.embedded.conftest import clean_environ


def mode(path: Path) -> int:
    """Return the permissions of a file."""
    return stat.S_IMODE(path.stat().st_mode)


async def test_kafka_keeps_what_a_producer_was_acknowledged(stack: Stack) -> None:
    address = stack.env["MERCURIA_KAFKA"]
    admin = AIOKafkaAdminClient(bootstrap_servers=address)
    await admin.start()
    await admin.create_topics([NewTopic("greetings", num_partitions=2, replication_factor=1)])
    await admin.close()
    producer = AIOKafkaProducer(bootstrap_servers=address, acks="all", enable_idempotence=True)
    await producer.start()
    await producer.send_and_wait("greetings", b"hello", partition=1)
    await producer.stop()
    consumer = AIOKafkaConsumer("greetings", bootstrap_servers=address, auto_offset_reset="earliest")
    await consumer.start()
    record = await consumer.getone()
    await consumer.stop()
    assert (record.partition, record.value) == (1, b"hello")


def test_kafka_has_javas_options_behind_its_own_where_they_win(stack: Stack) -> None:
    words = psutil.Process(processes.read_pid(stack.directory.path / "kafka.pid")).cmdline()
    options = shlex.split(os.environ["JDK_JAVA_OPTIONS"])
    first = words.index(options[0])
    assert words[first : first + len(options)] == options
    assert any(word.startswith("-Xmx") for word in words[:first])


@pytest.mark.parametrize(
    ("variable", "role"),
    [("MERCURIA_DATABASE", "mercuria_app"), ("MERCURIA_DATABASE_OWNER", "mercuria")],
)
def test_postgresql_answers_the_application_and_the_owner(stack: Stack, variable: str, role: str) -> None:
    with psycopg2.connect(stack.env[variable]) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT current_user, current_database(), current_setting('fsync')")
        assert cursor.fetchone() == (role, "mercuria", "on")
    connection.close()


def test_the_application_owns_nothing_and_makes_nothing_that_stays(stack: Stack) -> None:
    with psycopg2.connect(stack.env["MERCURIA_DATABASE"]) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication OR rolbypassrls,"
            " (SELECT count(*) FROM pg_shdepend WHERE refobjid = pg_roles.oid AND deptype = 'o'),"
            " (SELECT count(*) FROM pg_auth_members WHERE member = pg_roles.oid)"
            " FROM pg_roles WHERE rolname = current_user"
        )
        assert cursor.fetchone() == (False, 0, 0)
        cursor.execute("CREATE TEMPORARY TABLE passing (number integer) ON COMMIT DROP")
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            cursor.execute("CREATE TABLE staying (number integer)")
    connection.close()


@pytest.mark.parametrize("user", ["mercuria", "mercuria_app", "postgres"])
def test_postgresql_refuses_whoever_has_no_password(stack: Stack, user: str) -> None:
    with pytest.raises(psycopg2.OperationalError, match="password"):
        psycopg2.connect(
            host="127.0.0.1", port=stack.postgres.port, user=user, dbname="mercuria", passfile="/"
        )


def test_redis_answers(stack: Stack) -> None:
    client = redis.Redis.from_url(stack.env["MERCURIA_REDIS"])
    assert client.set("greeting", "hello")
    assert client.get("greeting") == b"hello"
    client.close()


def test_every_part_listens_on_loopback_only(stack: Stack) -> None:
    pids = {part.pid for part in stack.parts}
    listening = [
        connection
        for connection in psutil.net_connections("inet")
        if connection.pid in pids and connection.status == psutil.CONN_LISTEN
    ]
    assert len(listening) >= len(pids)
    assert {connection.laddr.ip for connection in listening} <= {"127.0.0.1", "::ffff:127.0.0.1"}


def test_a_shell_reads_stack_env_as_mercuria_does(stack: Stack) -> None:
    data_dir = stack.directory.path
    outcome = subprocess.run(
        ["sh", "-eu", "-c", 'set -a; . "$1"; env', "sh", str(data_dir / "stack.env")],
        env={"PATH": clean_environ()["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    )
    sourced = {line.partition("=")[0]: line.partition("=")[2] for line in outcome.stdout.splitlines()}
    told = read_stack_env(data_dir)
    assert told and told.items() <= sourced.items()
    assert told == {name: value for name, value in stack.env.items() if name != "MERCURIA_DATA_DIR"}


def test_what_is_secret_is_readable_by_its_owner_only(stack: Stack) -> None:
    data_dir = stack.directory.path
    assert {name: mode(data_dir / name) for name in ("stack.env", "leg.key", "pgpass")} == {
        "stack.env": 0o600,
        "leg.key": 0o600,
        "pgpass": 0o600,
    }
    assert re.fullmatch("[0-9a-f]{64}\n", (data_dir / "leg.key").read_text())


@pytest.mark.parametrize("name", ["kafka", "postgres", "redis", "logs"])
def test_what_the_servers_keep_is_closed_to_other_accounts(stack: Stack, name: str) -> None:
    assert mode(stack.directory.path / name) == 0o700


def test_another_account_finds_nothing_in_the_data_directory(stack: Stack) -> None:
    data_dir = stack.directory.path
    open_to_others = [
        path
        for path in (data_dir, *data_dir.rglob("*"))
        # Of a name in an access control list, the mask stands where the group's bits are.
        if path.lstat().st_mode & (0o067 if path == data_dir else 0o077) and not path.is_symlink()
    ]
    # PostgreSQL keeps the modes of its own data, in a directory that is closed.
    assert [path for path in open_to_others if not path.is_relative_to(data_dir / "postgres")] == []


def test_pid_files_name_the_processes(stack: Stack) -> None:
    data_dir = stack.directory.path
    assert {part.name: processes.read_pid(data_dir / f"{part.name}.pid") for part in stack.parts} == {
        part.name: part.pid for part in stack.parts
    }
    assert processes.read_pid(data_dir / "up.pid") == psutil.Process().pid
    for part in stack.parts:
        found = processes.find_part(data_dir, part.name)
        assert found is not None and found.pid == part.pid


def test_status_sees_everything_up(stack: Stack) -> None:
    parts = look(stack.directory)
    assert {part.name: part.state for part in parts} == dict.fromkeys(
        ["up", "kafka", "postgres", "redis", "worker-1"], State.UP
    )
    assert all(part.memory_bytes and part.memory_bytes > 2**20 and part.uptime_s for part in parts)
