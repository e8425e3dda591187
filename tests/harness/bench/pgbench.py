"""PostgreSQL's own benchmark, `pgbench`, on the server of a stack: what the machine can do, to compare with."""

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg2
from psycopg2.extensions import make_dsn

from mercuria.embedded.postgres import BINARIES

DATABASE = "mercuria_pgbench"
CLIENTS = 16
THREADS = 2
RUN = ("-M", "prepared", "-c", str(CLIENTS), "-j", str(THREADS))

_TPS = re.compile(r"^tps = ([0-9.]+)", re.MULTILINE)


class PgbenchError(Exception):
    """`pgbench` did not do what it should; the message has what it output."""


@contextmanager
def pgbench_database(url: str, scale: int) -> Iterator[str]:
    """Make a database of the server at `url` with pgbench's tables; yield its DSN, and drop it afterwards.

    Args:
        scale: in units of 100,000 accounts.
    """
    _execute(url, f"CREATE DATABASE {DATABASE}")
    try:
        dsn = make_dsn(url, dbname=DATABASE)
        _pgbench("--initialize", "--quiet", "--scale", str(scale), dsn)
        yield dsn
    finally:
        _execute(url, f"DROP DATABASE {DATABASE} WITH (FORCE)")


def pgbench_tps(dsn: str, seconds: int) -> float:
    """Run its standard transaction, which is like TPC-B; return how many a second."""
    output = _pgbench(*RUN, "-T", str(seconds), dsn)
    tps = _TPS.search(output)
    if tps is None:
        raise PgbenchError(f"pgbench does not print its speed: {output}")
    return float(tps[1])


def _pgbench(*arguments: str) -> str:
    outcome = subprocess.run(
        [str(BINARIES / "pgbench"), *arguments],
        # Nothing of the PG* variables, which may be meant for another server.
        env={"PATH": os.defpath, "LANG": "C.UTF-8"},
        capture_output=True,
        text=True,
        check=False,
    )
    if outcome.returncode != 0:
        raise PgbenchError(f"pgbench failed: {outcome.stderr}")
    return outcome.stdout


def _execute(url: str, statement: str) -> None:
    connection = psycopg2.connect(url)
    try:
        # Neither statement may stand in a transaction.
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
    finally:
        connection.close()
