"""`make bench`: measures, on a stack of its own that it starts and stops."""

import click


@click.group()
def bench() -> None:
    """Measure. Each command starts and stops what it needs."""


from tests.harness.bench import http, pipeline, scaling, wallets  # noqa: E402  register themselves with the group above

__all__ = ["bench", "http", "pipeline", "scaling", "wallets"]
