"""`python -m tests.harness`, from the repository's top level: benchmarks, fault injection and soaks.

Each command starts and stops a stack of its own. Exit codes are those of the `mercuria` command (`cli.failures`).
"""

import sys

import click

from mercuria.cli import failures, standard_streams
from tests.harness.bench.command import bench
from tests.harness.bench.pgbench import PgbenchError
from tests.harness.chaos.command import chaos
from tests.harness.errors import StalledError
from tests.harness.soak.command import soak

ERRORS = (PgbenchError, StalledError)
"""Errors whose message is the sentence to print."""


@click.group()
def harness() -> None:
    """Measure Mercuria, break it, and keep it busy, on stacks that are started for it."""


for command in (bench, chaos, soak):
    harness.add_command(command)


def _run() -> object:
    failures.silence_clients()
    try:
        return harness(prog_name="harness", standalone_mode=False)
    except ERRORS as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    standard_streams.settle()
    sys.exit(failures.run(_run))
