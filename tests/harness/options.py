"""Options that all runs on a throwaway stack share."""

from collections.abc import Callable

import click

from mercuria.cli.options import json_option

Decorator = Callable[[Callable[..., None]], Callable[..., None]]


def run_options(seed_help: str) -> Decorator:
    """Return a decorator that adds `--seed`, `--data-dir` and `--json` to a command."""
    return all_of(
        json_option,
        click.option(
            "--data-dir",
            type=click.Path(),
            help="A directory that is empty or does not exist, and is kept. Default: a temporary one.",
        ),
        click.option("--seed", type=int, help=seed_help),
    )


def all_of(*options: Decorator) -> Decorator:
    """Return a decorator that adds several options; the help lists the last one first."""

    def add(command: Callable[..., None]) -> Callable[..., None]:
        for option in options:
            command = option(command)
        return command

    return add
