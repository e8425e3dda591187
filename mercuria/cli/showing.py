"""How commands print tables, facts and JSON. What others wrote is made `printable` by who puts it in."""

import sys
from collections.abc import Sequence
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from mercuria.cli.printable import json_text

PIPE_CHARACTERS = 200


def show_table(table: Table) -> None:
    """Print a table as wide as the terminal is; in a pipe, every line stays whole."""
    _console(None if sys.stdout.isatty() else PIPE_CHARACTERS).print(table)


def show_facts(facts: Sequence[tuple[str, str]]) -> None:
    """Print names with what they stand for, each fact on a line of its own.

    On a terminal, what does not fit into a line goes on below its own column, so it cannot pass for another fact.
    """
    if not sys.stdout.isatty():
        width = max((len(name) for name, _ in facts), default=0)
        for name, text in facts:
            click.echo(f"{name:{width}}  {text}")
        return
    table = Table.grid(padding=(0, 2))
    table.add_column(overflow="fold", max_width=40)
    table.add_column(overflow="fold")
    for name, text in facts:
        table.add_row(name, text)
    _console(None).print(table)


def show_json(value: Any) -> None:
    """Print JSON."""
    click.echo(json_text(value))


def _console(width: int | None) -> Console:
    # Rich would take [red] and :smile: in a text for its own marks.
    return Console(width=width, markup=False, emoji=False, highlight=False)
