"""`mercuria user`, `mercuria keys` and `mercuria migrate`, as they are typed."""

import asyncio
import json
import os
import pty
import secrets
import stat
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from mercuria.auth.accounts import Accounts, Session
from mercuria.auth.emails import Email, parse_email
from mercuria.auth.passwords import Passwords
from mercuria.auth.security_log import Pseudonyms
from mercuria.auth.token_keys import JwkSet, new_key, parse_keys
from mercuria.auth.tokens import Tokens
from mercuria.config import Settings, read_stack_env
from mercuria.embedded.stack import Stack
from mercuria.http.problems import Problem
from mercuria.postgres.database import Database
from tests.auth.conftest import NO_KAFKA, PASSWORD, settings_of
from tests.embedded.conftest import clean_environ
from tests.terminals import read_until

TIMEOUT_S = 60


@dataclass(frozen=True)
class Said:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str


class CommandLine:
    """Runs `mercuria` for a stack."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        # Variables that would lead libpq to another password.
        self.environ = clean_environ() | {
            "PGPASSWORD": "meant for another server",
            "MERCURIA_BCRYPT_COST": "4",
        }

    def command(self, *words: str) -> list[str]:
        """Return a command as a list."""
        return [sys.executable, "-m", "mercuria", *words, "--data-dir", str(self.data_dir)]

    def __call__(self, *words: str, said: str = "") -> Said:
        """Run `mercuria WORDS` to its end, with `said` as its input."""
        outcome = subprocess.run(
            self.command(*words),
            env=self.environ,
            input=said,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        return Said(outcome.returncode, outcome.stdout, outcome.stderr)


@pytest.fixture
def mercuria(servers: Stack) -> CommandLine:
    """Return the command line of the stack."""
    return CommandLine(servers.directory.path)


@pytest.fixture
def address() -> str:
    """Return an e-mail address that nobody has used."""
    return f"operator-{secrets.token_hex(6)}@example.com"


def test_an_operator_is_made_listed_and_changed(mercuria: CommandLine, address: str) -> None:
    made = mercuria("user", "create", address, "--role", "operator", said=PASSWORD + "\n")
    assert (made.code, made.err) == (0, "")
    assert made.out.startswith(f"Made the operator {address} with the id ")
    again = mercuria("user", "create", address.upper(), said=PASSWORD + "\n")
    assert (again.code, again.err) == (1, "mercuria: There is an account with this e-mail address.\n")

    everybody = json.loads(mercuria("user", "list", "--limit", "1000", "--json").out)
    (listed,) = (user for user in everybody if user["email"] == address)
    assert listed.keys() == {"id", "email", "role", "created_at"}
    assert made.out.rstrip(".\n").endswith(listed["id"])
    assert address in mercuria("user", "list", "--limit", "1000").out

    changed = mercuria("user", "set-role", address, "user")
    assert (changed.code, changed.out) == (0, f"{address} is user now.\n")
    renewed = mercuria("user", "set-password", address, said="another password of mine\n")
    assert (renewed.code, renewed.out) == (0, f"{address} has a new password, and has to log in again.\n")

    by_program = mercuria("user", "set-role", address, "operator", "--json")
    assert json.loads(by_program.out) == listed
    again = mercuria("user", "create", address, "--json", said=PASSWORD)
    assert (again.code, again.out) == (1, "")


def test_what_a_command_changes_about_an_account_is_a_security_event(
    mercuria: CommandLine, address: str
) -> None:
    file = mercuria.data_dir / "logs" / "security.log"
    before = len(file.read_text().splitlines()) if file.exists() else 0
    assert mercuria("user", "create", address, "--role", "operator", said=PASSWORD).code == 0
    assert mercuria("user", "set-role", address, "user").code == 0
    assert mercuria("user", "set-password", address, said="another password of mine").code == 0
    assert mercuria("user", "set-password", f"x{address}", said="another password of mine").code == 1
    lines = [json.loads(line) for line in file.read_text().splitlines()[before:]]
    changes = [("account_created", "operator"), ("role_changed", "user"), ("password_changed", "user")]
    assert [(line["security_event"], line["role"]) for line in lines] == changes
    email = parse_email(address)
    assert isinstance(email, Email)
    pseudonyms = Pseudonyms(Settings.from_env({"MERCURIA_DATA_DIR": str(mercuria.data_dir)}).leg_key)
    assert {line["account"] for line in lines} == {pseudonyms.of_email(email)}
    assert len({line["user"] for line in lines}) == 1 and all(line["by"] for line in lines)
    assert address not in file.read_text() and PASSWORD not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("words", "said", "code", "sentence"),
    [
        (("create", "nobody"), PASSWORD, 2, "'nobody' is no e-mail address: "),
        (
            ("create", "zoe@example.com"),
            "password1",
            1,
            "It is too easy to guess: choose a longer or rarer one.",
        ),
        (("create", "zoe@example.com"), "", 1, "It must have at least 8 characters."),
        (("set-role", "nobody@example.com", "operator"), "", 1, "there is no account nobody@example.com."),
        (("set-password", "nobody@example.com"), PASSWORD, 1, "there is no account nobody@example.com."),
    ],
)
def test_a_refusal_is_a_sentence(
    mercuria: CommandLine, words: tuple[str, ...], said: str, code: int, sentence: str
) -> None:
    outcome = mercuria("user", *words, said=said)
    assert outcome.code == code
    assert outcome.err.startswith(f"mercuria: {sentence}")
    assert outcome.err.count("\n") == 1
    assert not said or said not in outcome.out + outcome.err


@pytest.mark.parametrize(
    ("typed", "language"),
    [
        ("p\u00e4ssw\u00f6rter und otter\n".encode("latin-1"), "C.UTF-8"),
        ("p\u00e4ssw\u00f6rter und otter\n".encode("latin-1"), "C"),
        (b"seven otters\0juggle\n", "C.UTF-8"),
    ],
)
def test_a_password_that_nobody_could_type_again_makes_no_account(
    mercuria: CommandLine, address: str, typed: bytes, language: str
) -> None:
    outcome = subprocess.run(
        mercuria.command("user", "create", address),
        env=mercuria.environ | {"LC_ALL": language, "PYTHONUTF8": "0"},
        input=typed,
        capture_output=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    sentence = b"mercuria: the password is not text in UTF-8, or has control characters in it.\n"
    assert (outcome.returncode, outcome.stdout, outcome.stderr) == (2, b"", sentence)
    email = parse_email(address)
    assert isinstance(email, Email)
    assert asyncio.run(log_in(mercuria, email, typed.decode("latin-1").strip())) == Problem(
        "invalid_credentials"
    )


def test_a_line_as_windows_ends_it_is_the_password_without_its_end(
    mercuria: CommandLine, address: str
) -> None:
    made = subprocess.run(
        mercuria.command("user", "create", address),
        env=mercuria.environ | {"LC_ALL": "C", "PYTHONUTF8": "0"},
        input="\ufeffp\u00e4ssw\u00f6rter und otter\r\n".encode(),
        capture_output=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert (made.returncode, made.stderr) == (0, b"")
    email = parse_email(address)
    assert isinstance(email, Email)
    outcome = asyncio.run(log_in(mercuria, email, "p\u00e4ssw\u00f6rter und otter"))
    assert isinstance(outcome, Session)


async def log_in(mercuria: CommandLine, email: Email, password: str) -> Session | Problem:
    """Log in to an account of the stack."""
    env = read_stack_env(mercuria.data_dir)
    settings = settings_of({"MERCURIA_DATA_DIR": str(mercuria.data_dir)}, mercuria.data_dir / "keys.json")
    settings.token_keys_file.write_text(JwkSet((new_key(int(time.time())),)).as_text())
    database, passwords = Database(env["MERCURIA_DATABASE"]), Passwords(cost=4)
    try:
        return await Accounts(database, passwords, Tokens(settings), settings).login(email, password)
    finally:
        passwords.close()
        await database.close()


@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])
def test_a_terminal_that_is_not_utf_8_gets_the_same_sentence(
    mercuria: CommandLine, address: str, errors: str
) -> None:
    keyboard, terminal = pty.openpty()
    process = subprocess.Popen(
        mercuria.command("user", "create", address),
        env=mercuria.environ | {"PYTHONIOENCODING": f"utf-8:{errors}"},
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    )
    os.close(terminal)
    typed = "p\u00e4ssw\u00f6rter und otter\n".encode("latin-1")
    read_until(keyboard, b"Password: ")
    os.write(keyboard, typed)
    if errors == "surrogateescape":
        read_until(keyboard, b"Repeat for confirmation: ")
        os.write(keyboard, typed)
    shown = read_until(keyboard, b"in it.")
    assert process.wait(TIMEOUT_S) == 2
    assert b"Traceback" not in shown
    os.close(keyboard)


def test_a_terminal_is_asked_twice_and_shows_nothing(mercuria: CommandLine, address: str) -> None:
    keyboard, terminal = pty.openpty()
    process = subprocess.Popen(
        mercuria.command("user", "create", address),
        env=mercuria.environ,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    )
    os.close(terminal)
    shown = read_until(keyboard, b"Password: ")
    os.write(keyboard, PASSWORD.encode() + b"\n")
    shown += read_until(keyboard, b"Repeat for confirmation: ")
    assert PASSWORD not in " ".join(psutil.Process(process.pid).cmdline())
    os.write(keyboard, PASSWORD.encode() + b"\n")
    shown += read_until(keyboard, b"with the id")
    assert process.wait(TIMEOUT_S) == 0
    assert PASSWORD.encode() not in shown
    os.close(keyboard)


def test_without_the_owner_nobody_becomes_an_operator(mercuria: CommandLine, address: str) -> None:
    made = mercuria("user", "create", address, said=PASSWORD)
    assert made.code == 0, made.err
    mercuria.environ["MERCURIA_DATABASE_OWNER"] = read_stack_env(mercuria.data_dir)["MERCURIA_DATABASE"]
    sentence = "mercuria: only the role that owns the tables may make operators and change roles: "
    for words in (("set-role", address, "operator"), ("create", f"x{address}", "--role", "operator")):
        refused = mercuria("user", *words, said=PASSWORD)
        assert (refused.code, refused.out) == (2, "")
        assert refused.err == f"{sentence}set MERCURIA_DATABASE_OWNER to its URL.\n"


def test_where_nothing_runs_there_is_a_sentence(tmp_path: Path) -> None:
    nowhere = CommandLine(tmp_path / "data")
    nowhere.environ |= {"MERCURIA_DATABASE": "postgresql://127.0.0.1:1/mercuria"}
    for words in (("user", "list"), ("migrate",)):
        outcome = nowhere(*words)
        assert outcome.code == 2
        assert outcome.err.startswith("mercuria: PostgreSQL ")
        assert outcome.err.count("\n") == 1


def test_the_database_is_migrated_by_hand(mercuria: CommandLine) -> None:
    assert mercuria("migrate") == Said(0, "The database has all migrations.\n", "")
    assert json.loads(mercuria("migrate", "--json").out) == {"applied": []}


# Keys.


@pytest.fixture
def keys(mercuria: CommandLine, keys_file: Path) -> CommandLine:
    """Return the command line of an installation with one key."""
    mercuria.environ |= NO_KAFKA | {"MERCURIA_TOKEN_KEYS_FILE": str(keys_file)}
    return mercuria


def test_keys_are_rotated_and_listed(keys: CommandLine, keys_file: Path) -> None:
    (first,) = parse_keys(keys_file.read_text()).keys
    rotated = keys("keys", "rotate")
    old, new = parse_keys(keys_file.read_text()).keys
    assert rotated == Said(0, f"The key {new.kid} signs from now on.\n", "")
    assert old.kid == first.kid
    assert stat.S_IMODE(keys_file.stat().st_mode) == 0o600
    listed = keys("keys", "list").out
    assert [kid in listed for kid in (old.kid, new.kid)] == [True, True]
    published = json.loads(keys("keys", "list", "--json").out)
    assert published == {"keys": [old.public(), new.public()]}
    assert old.d not in listed

    dropped = keys("keys", "rotate", "--drop-old")
    (only,) = parse_keys(keys_file.read_text()).keys
    assert dropped.out == f"The key {only.kid} signs from now on.\n"

    by_program = keys("keys", "rotate", "--json")
    assert json.loads(by_program.out) == json.loads(keys("keys", "list", "--json").out)


def test_a_first_key_is_made_once(keys: CommandLine, keys_file: Path) -> None:
    kept = keys_file.read_text()
    refused = keys("keys", "create")
    assert refused.code == 1 and "is there already" in refused.err
    assert keys_file.read_text() == kept
    keys_file.unlink()
    assert keys("keys", "create").code == 0
    (first,) = parse_keys(keys_file.read_text()).keys
    assert first.kid in keys("keys", "list").out


def test_two_rotations_at_once_lose_no_key(keys: CommandLine, keys_file: Path) -> None:
    processes = [subprocess.Popen(keys.command("keys", "rotate"), env=keys.environ) for _ in range(3)]
    assert [process.wait(TIMEOUT_S) for process in processes] == [0, 0, 0]
    assert len(parse_keys(keys_file.read_text()).keys) == 4


def test_keys_that_cannot_be_read_are_a_sentence(keys: CommandLine, keys_file: Path) -> None:
    keys_file.write_text("{}")
    for words in (("keys", "list"), ("keys", "rotate")):
        outcome = keys(*words)
        assert outcome.code == 2
        assert outcome.err.startswith(f"mercuria: the keys in {keys_file} cannot be read: ")
    assert keys_file.read_text() == "{}"


def test_keys_that_cannot_be_written_are_a_sentence(keys: CommandLine, keys_file: Path) -> None:
    elsewhere = keys_file / "token-keys.json"
    keys.environ["MERCURIA_TOKEN_KEYS_FILE"] = str(elsewhere)
    refused = keys("keys", "create")
    assert refused == Said(2, "", f"mercuria: {elsewhere} cannot be written: File exists.\n")
