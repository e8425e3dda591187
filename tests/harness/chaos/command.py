"""The commands of `make chaos`."""

import click

from tests.harness.chaos.http.command import http_command
from tests.harness.chaos.kafka.command import kafka_command, kill_workers_command, stages_command


@click.group()
def chaos() -> None:
    """Break a stack of its own under load, and audit the log afterwards."""


for command in (kill_workers_command, kafka_command, stages_command, http_command):
    chaos.add_command(command)
