"""Which commands there are, in which group the help lists each, and where each is. Nothing is imported for that.

A command stands in exactly one group. `make commands` writes down what the commands and their options are, in
`command_line.json`, from which the help of `mercuria` and completion are made.
"""

from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec

MODULES = {
    "bench": "bench",
    "chaos": "chaos",
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
    "soak": "soak",
    "status": "up",
    "up": "up",
    "user": "user",
    # It registers itself with `mercuria.cli.wallet`, which has the others.
    "wallet": "limits",
}
"""For each of Mercuria's commands, what in `mercuria.cli` has it."""

MEASURE = "Measure and test, on a stack of their own"
FAUST = "Faust"

GROUPS: Mapping[str, Sequence[str]] = {
    "Run": ("up", "join", "worker", "down"),
    "Look": ("status", "wallet"),
    "Check": ("ledger", "reconcile"),
    "Administer": ("load", "user", "keys", "migrate", "rebuild", "skip", "completion"),
    MEASURE: ("bench", "chaos", "soak"),
    FAUST: ("agents", "tables", "reset", "clean-versions", "livecheck", "model", "models", "send"),
}
"""The commands by what people do with them, in the order of the help."""

WORKER_HELP = """\
Run one worker, with the settings of the environment.

The worker decides the commands of its partitions and answers HTTP, until Ctrl-C. It needs Kafka, and is started by
`mercuria up`; on other machines, start it by itself. Its log level and port are settings: MERCURIA_LOG_LEVEL,
MERCURIA_HTTP_PORT and MERCURIA_WORKER_PORT.

\b
Examples:
  mercuria worker
  MERCURIA_WORKER=worker-3 MERCURIA_WORKER_PORT=6067 mercuria worker
"""

STANDALONE = ("completion", "reset", "clean-versions", "livecheck", "model", "models", "send")
"""Commands that need neither Faust nor its app."""


def is_installed(command: str) -> bool:
    """Tell whether an installation has a command; those that measure may be left out of it."""
    return command not in GROUPS[MEASURE] or find_spec(f"mercuria.cli.{MODULES[command]}") is not None


def names() -> list[str]:
    """Return the names of all commands."""
    return [name for group in GROUPS.values() for name in group if is_installed(name)]


def command_of(words: Sequence[str]) -> str | None:
    """Return the command that the words of a command line name, be it Mercuria's or Faust's."""
    known = names()
    return next((word for word in words if word in known), None)


def register(command: str | None = None) -> None:
    """Fit Faust's command line to Mercuria, with one of Mercuria's commands or with all of them.

    All take as long to load as a worker takes for its own parts.
    """
    from faust.cli.faust import cli

    from mercuria.cli.standalone import COMMANDS

    for name in MODULES if command is None else [command]:
        if name in MODULES and name not in STANDALONE and is_installed(name):
            import_module(f"mercuria.cli.{MODULES[name]}")
    for each in COMMANDS:
        cli.add_command(each)
    cli.commands["worker"].help = WORKER_HELP
