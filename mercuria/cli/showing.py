"""How commands show tables."""

import sys

from rich.console import Console
from rich.table import Table

PIPE_CHARACTERS = 200


def show_table(table: Table) -> None:
    """Print a table as wide as the terminal is; in a pipe, every line stays whole."""
    Console(width=None if sys.stdout.isatty() else PIPE_CHARACTERS).print(table)
