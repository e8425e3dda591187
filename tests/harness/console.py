"""What the harness prints: progress while a run goes on, and its report at the end."""

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from mercuria.cli.printable import printable
from mercuria.cli.showing import show_json

Echo = Callable[[str], None]
"""Prints one message of a run, at once."""


def progress_console(*, stderr: bool = True) -> Console:
    """Return the console for progress: standard error where standard output is for a report."""
    return plain_console(stderr=stderr)


def plain_console(*, stderr: bool = False) -> Console:
    """Return a console that prints text as it is, without markup, and does not wrap it."""
    return Console(stderr=stderr, highlight=False, markup=False, emoji=False, soft_wrap=True)


def echo_on(console: Console) -> Echo:
    """Return a function that prints messages on a console, one line each."""

    def echo(message: str) -> None:
        # Further lines are the log of a part that was killed on purpose.
        console.print(printable(message.split("\n")[0].partition("; the last lines of")[0]))

    return echo


def chosen_seed(seed: int | None, echo: Echo) -> int:
    """Return the seed of a run, a random one if none is given, and print it."""
    chosen = secrets.randbelow(2**32) if seed is None else seed
    echo(f"Seed {chosen}.")
    return chosen


def print_figures(figures: Mapping[str, object], findings: Sequence[str]) -> None:
    """Print figures in a table, and what is wrong below it."""
    table = Table.grid(padding=(0, 2))
    for name, value in figures.items():
        table.add_row(name, str(value))
    console = plain_console()
    console.print(table)
    for finding in findings:
        console.print(printable(finding))


def print_report(report: Any, table: Table, *, as_json: bool) -> None:
    """Print a report, which is a dataclass, as a table or as JSON."""
    if as_json:
        show_json(asdict(report))
    else:
        Console().print(table)
