"""Registers Mercuria's commands with Faust's command line."""

from collections.abc import Sequence
from importlib import import_module

from faust.cli.faust import cli

MODULES = {
    "down": "up",
    "join": "join",
    "keys": "keys",
    "ledger": "ledger",
    "load": "load",
    "migrate": "migrate",
    "rebuild": "rebuild",
    "reconcile": "reconcile",
    "skip": "skip",
    "status": "up",
    "up": "up",
    "user": "user",
    # It registers itself with `mercuria.cli.wallet`, which has the others.
    "wallet": "limits",
}
"""For each of Mercuria's commands, what in `mercuria.cli` has it."""


def register(command: str | None = None) -> None:
    """Register one of Mercuria's commands, or all: they take as long to load as a worker takes for its own parts."""
    for name in [MODULES[command]] if command else MODULES.values():
        import_module(f"mercuria.cli.{name}")


def command_of(words: Sequence[str]) -> str | None:
    """Return the command that the words of a command line name, be it Mercuria's or Faust's."""
    return next((word for word in words if word in MODULES or word in cli.commands), None)
