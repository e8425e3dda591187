"""Options that several commands have."""

import click

data_dir_option = click.option(
    "--data-dir",
    type=click.Path(),
    expose_value=False,  # `mercuria.cli.main` has taken it out of the arguments before click sees them.
    help="Where the stack keeps everything. Default: MERCURIA_DATA_DIR, else ./data.",
)
