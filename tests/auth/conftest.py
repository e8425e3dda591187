"""What the tests of auth share: PostgreSQL and Redis without workers, and services on top of them."""

import os
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from mercuria.auth.accounts import Accounts
from mercuria.auth.emails import Email, parse_email
from mercuria.auth.passwords import Passwords
from mercuria.auth.token_keys import JwkSet, new_key
from mercuria.auth.tokens import Tokens
from mercuria.config import Settings
from mercuria.embedded.stack import Stack
from mercuria.postgres.database import Database
from mercuria.postgres.migrate import migrate

PASSWORD = "correct horse battery staple"
NO_KAFKA = {"MERCURIA_KAFKA": "127.0.0.1:1"}


@pytest.fixture(scope="package")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Return a started stack of PostgreSQL, with its schema, and Redis."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("MERCURIA_", "PG"))}
    data_dir = tmp_path_factory.mktemp("auth") / "data"
    with Stack(data_dir, environ=environ | NO_KAFKA, supervise=False) as stack:
        migrate(stack.env["MERCURIA_DATABASE_OWNER"])
        yield stack


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    """Return a file with one key that signs."""
    path = tmp_path / "token-keys.json"
    path.write_text(JwkSet((new_key(int(time.time())),)).as_text())
    return path


@pytest.fixture
def settings(tmp_path: Path, keys_file: Path) -> Settings:
    """Return settings that need no server."""
    return settings_of({"MERCURIA_DATA_DIR": str(tmp_path)}, keys_file)


@pytest.fixture
async def database(servers: Stack) -> AsyncIterator[Database]:
    """Return the stack's database."""
    opened = Database(servers.env["MERCURIA_DATABASE"])
    yield opened
    await opened.close()


@pytest.fixture
async def accounts(database: Database, settings: Settings, passwords: Passwords) -> Accounts:
    """Return the accounts in the stack's database."""
    return Accounts(database, passwords, Tokens(settings), settings)


@pytest.fixture
def passwords() -> Iterator[Passwords]:
    """Return passwords whose hashes cost little."""
    cheap = Passwords(cost=4)
    yield cheap
    cheap.close()


@pytest.fixture
def email() -> Email:
    """Return an address that nobody has used yet."""
    return an_email()


def an_email() -> Email:
    """Return an address that nobody has used yet."""
    parsed = parse_email(f"somebody-{secrets.token_hex(6)}@example.com")
    assert isinstance(parsed, Email)
    return parsed


def settings_of(env: dict[str, str], keys_file: Path, **more: str) -> Settings:
    """Return settings with cheap hashes."""
    cheap = {"MERCURIA_BCRYPT_COST": "4", "MERCURIA_TOKEN_KEYS_FILE": str(keys_file)}
    return Settings.from_env(env | cheap | more)
