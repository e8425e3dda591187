"""Output of tables, facts and JSON. The caller makes foreign text `printable`."""

import sys
from collections.abc import Sequence
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from mercuria.cli.printable import json_text

PIPE_CHARACTERS = 200


def show_table(table: Table) -> None:
    """Print a table with the width of the terminal; in a pipe, lines are never wrapped."""
    _console(None if sys.stdout.isatty() else PIPE_CHARACTERS).print(table)


def show_facts(facts: Sequence[tuple[str, str]]) -> None:
    """Print names with their values, one fact per line.

    On a terminal, a long value continues below its own column, so it cannot be mistaken for another fact.
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
    # Rich would interpret [red] and :smile: in a text as markup.
    return Console(width=width, markup=False, emoji=False, highlight=False)
