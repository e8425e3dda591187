"""Migrations: once each, whoever starts them, how many do so at once, and whenever one of them is killed."""

import logging
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg2
import pytest
from psycopg2.errors import InsufficientPrivilege

from mercuria.embedded.stack import Stack
from mercuria.postgres.migrate import MigrationError, NotTheOwner, migrate
from tests.embedded.conftest import clean_environ

MIGRATIONS = Path(__file__).parents[2] / "migrations"
NAMES = sorted(file.stem for file in MIGRATIONS.glob("*.sql"))
PROGRAM = "import sys; from mercuria.postgres.migrate import migrate; print(*migrate(sys.argv[1]))"
START = (
    "import asyncio, logging; logging.basicConfig(level='WARNING');"
    " from mercuria.config import current_settings;"
    " from mercuria.worker import migrate_soon; asyncio.run(migrate_soon(current_settings().database_owner))"
)
PATIENCE_S = 30


@pytest.fixture
def url(servers: Stack) -> Iterator[str]:
    """Return the URL of an empty database."""
    name = f"empty_{secrets.token_hex(4)}"
    own = servers.env["MERCURIA_DATABASE_OWNER"]
    execute(own, f"CREATE DATABASE {name}")
    yield urlunsplit(urlsplit(own)._replace(path=f"/{name}"))
    execute(own, f"DROP DATABASE {name} WITH (FORCE)")


def as_application(url: str) -> str:
    """Return the URL of the application's role for a database."""
    return url.replace("//mercuria@", "//mercuria_app@", 1)


def execute(url: str, sql: str) -> None:
    """Run a statement that cannot be in a transaction."""
    connection = psycopg2.connect(url)
    connection.autocommit = True
    connection.cursor().execute(sql)
    connection.close()


def scalar(url: str, sql: str) -> object:
    """Return the one value that a query gives."""
    connection = psycopg2.connect(url)
    try:
        cursor = connection.cursor()
        cursor.execute(sql)
        return cursor.fetchone()[0]
    finally:
        connection.close()


def tables(url: str) -> object:
    """Return the names of Mercuria's own tables, in their order."""
    return scalar(
        url,
        "SELECT coalesce(array_agg(tablename::text ORDER BY tablename), '{}') FROM pg_tables"
        " WHERE schemaname = 'public' AND tablename NOT LIKE '%yoyo%'",
    )


def start(url: str) -> subprocess.Popen[str]:
    """Migrate in a process of its own."""
    command = [sys.executable, "-c", PROGRAM, url]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> list[str]:
    """Wait for a process, and return what it has applied."""
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, err
    return out.split()


def wait_until(condition: Callable[[], object]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "this did not come true"
        time.sleep(0.02)


def waiting(url: str) -> object:
    """Return how many connections wait for a lock in a database."""
    return scalar(
        url,
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'",
    )


def test_an_empty_database_gets_everything_once(url: str) -> None:
    assert migrate(url) == NAMES
    made = tables(url)
    assert migrate(url) == []
    assert tables(url) == made
    assert {"users", "refresh_families", "refresh_tokens"} <= set(made)  # type: ignore[call-overload]


def test_files_are_numbered_without_a_gap() -> None:
    assert all(re.fullmatch(r"\d{4}_[a-z_]+", name) for name in NAMES)
    assert [int(name[:4]) for name in NAMES] == list(range(1, len(NAMES) + 1))


def test_four_processes_at_once_apply_each_migration_once(url: str) -> None:
    processes = [start(url) for _ in range(4)]
    applied = [finish(process) for process in processes]
    assert sorted(applied) == [[], [], [], NAMES], "one does all, and the others wait for it"


def test_one_that_is_killed_in_the_middle_leaves_nothing_behind(url: str) -> None:
    blocker = psycopg2.connect(url)
    # While another transaction is about to make a table of this name, the migration waits in its middle.
    blocker.cursor().execute("CREATE TABLE refresh_tokens ()")
    killed = start(url)
    wait_until(lambda: waiting(url) == 1)
    others = [start(url) for _ in range(3)]
    wait_until(lambda: waiting(url) == 4)
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=PATIENCE_S)
    blocker.rollback()
    blocker.close()
    assert sorted(finish(process) for process in others) == [[], [], NAMES]
    assert migrate(url) == []


def test_one_that_is_killed_while_it_waits_blocks_nobody(url: str) -> None:
    blocker = psycopg2.connect(url)
    blocker.cursor().execute("CREATE TABLE refresh_tokens ()")
    first = start(url)
    wait_until(lambda: waiting(url) == 1)
    killed = start(url)
    wait_until(lambda: waiting(url) == 2)
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=PATIENCE_S)
    blocker.rollback()
    blocker.close()
    assert finish(first) == NAMES


def test_a_migration_that_fails_has_no_effect_and_can_be_repeated(url: str) -> None:
    execute(url, "CREATE TABLE refresh_families ()")
    for _ in range(2):
        with pytest.raises(MigrationError, match=r'^The migration 0001_users failed: relation "refresh_fam'):
            migrate(url)
        assert tables(url) == ["refresh_families"]
    execute(url, "DROP TABLE refresh_families")
    assert migrate(url) == NAMES


def test_a_database_that_is_newer_is_refused_in_one_sentence(url: str) -> None:
    migrate(url)
    execute(
        url,
        "INSERT INTO _yoyo_migration VALUES ('hash', '9999_the_future', now()), ('other', '9998_soon', now())",
    )
    with pytest.raises(MigrationError) as refused:
        migrate(url)
    assert str(refused.value) == (
        "The database is newer than this Mercuria, which does not know 9998_soon, 9999_the_future:"
        " install the version that the database was used with last, or a later one."
    )


def test_where_nothing_listens_there_is_one_sentence() -> None:
    with pytest.raises(MigrationError, match=r"^PostgreSQL cannot be reached: .*refused"):
        migrate("postgresql://127.0.0.1:1/mercuria")


def test_accounts_of_before_the_rights_by_column_are_there_afterwards(url: str) -> None:
    migrate(url, last="0004_analytics")
    execute(
        url,
        "INSERT INTO users (id, email, email_key, password_hash, role)"
        " VALUES (gen_random_uuid(), 'zoe@example.com', 'zoe@example.com', '-', 'operator')",
    )
    set_role = "UPDATE users SET role = 'operator'"
    execute(as_application(url), set_role)
    assert NAMES[-1] in migrate(url)
    assert scalar(as_application(url), "SELECT count(*) FROM users WHERE role = 'operator'") == 1
    with pytest.raises(InsufficientPrivilege):
        execute(as_application(url), set_role)
    execute(url, set_role)


# Who may.


def test_the_application_finds_out_that_nothing_is_to_be_done(url: str) -> None:
    migrate(url)
    assert migrate(as_application(url)) == []


@pytest.mark.parametrize(
    ("last", "lacks"), [(None, ", ".join(NAMES)), ("0002_wallets", "migrations"), (NAMES[-2], "")]
)
def test_the_application_changes_nothing_and_says_who_does(url: str, last: str | None, lacks: str) -> None:
    if last is not None:
        migrate(url, last=last)
    before = tables(url)
    with pytest.raises(NotTheOwner) as refused:
        migrate(as_application(url))
    sentence = str(refused.value)
    assert sentence.startswith(f"The database lacks {lacks}")
    assert sentence.endswith(
        ", and the role mercuria_app does not own it: run `mercuria migrate` with MERCURIA_DATABASE_OWNER,"
        " the URL of the role that does."
    )
    assert tables(url) == before


def test_a_worker_of_the_application_starts_beside_a_database_that_is_behind(
    url: str, tmp_path: Path
) -> None:
    environ = clean_environ() | {"MERCURIA_DATA_DIR": str(tmp_path), "MERCURIA_DATABASE": as_application(url)}
    command = [sys.executable, "-c", START]
    behind = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    assert "does not own it" in behind.stderr and "does without PostgreSQL" in behind.stderr
    assert tables(url) == []
    owners = environ | {"MERCURIA_DATABASE_OWNER": url}
    assert subprocess.run(command, env=owners, capture_output=True, check=True).stderr == b""
    assert migrate(url) == []


# While others work.


def test_nobody_waits_long_for_a_migration_that_waits(url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    migrate(url, last="0002_wallets")
    reader = psycopg2.connect(url)
    reader.cursor().execute("SELECT FROM positions")
    with ThreadPoolExecutor(1) as threads:
        migrating = threads.submit(migrate, url)
        wait_until(lambda: waiting(url) == 1)
        began = time.monotonic()
        # It comes behind the migration, and would wait until the first reader is done.
        scalar(url, "SELECT count(*) FROM positions")
        assert time.monotonic() - began < 3
        assert not migrating.done()
        reader.rollback()
        assert migrating.result(PATIENCE_S) == NAMES[2:]
    reader.close()
    (said,) = caplog.messages
    assert said == "The migration 0003_ledger waits for a lock that another session holds, and tries again."
