"""`mercuria ledger`: verifies the ledger, and exports it."""

import click

from mercuria.cli.data_dir import data_dir_option


@click.group()
@data_dir_option
def ledger() -> None:
    """Verify the ledger, and export it."""


from mercuria.cli.ledger import export, verify  # noqa: E402  register themselves with the group above

__all__ = ["export", "ledger", "verify"]
