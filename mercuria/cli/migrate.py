"""`mercuria migrate`: migrates the database to this code's schema, as `mercuria up` also does."""

import click

from mercuria.cli.data_dir import with_data_dir
from mercuria.cli.options import json_option
from mercuria.cli.showing import show_json
from mercuria.config import current_settings
from mercuria.postgres.migrate import migrate as apply_migrations


@click.command()
@with_data_dir
@json_option
def migrate(as_json: bool) -> None:
    """Apply the migrations that the database does not have yet.

    `mercuria up` and workers do so at their start. The role is that of MERCURIA_DATABASE_OWNER, which owns the tables.
    """
    applied = apply_migrations(current_settings().database_owner)
    if as_json:
        show_json({"applied": applied})
        return
    for name in applied:
        click.echo(f"Applied {name}.")
    if not applied:
        click.echo("The database has all migrations.")
