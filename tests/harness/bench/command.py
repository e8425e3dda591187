"""The commands of `make bench`."""

import click

from tests.harness.bench.http.command import http_command
from tests.harness.bench.pipeline import pipeline_command
from tests.harness.bench.scaling import scaling_command
from tests.harness.bench.wallets import wallets_command


@click.group()
def bench() -> None:
    """Measure. Each command starts and stops what it needs."""


for command in (http_command, pipeline_command, scaling_command, wallets_command):
    bench.add_command(command)
