"""The `mercuria` command: Mercuria's commands, one file each, and Faust's commands that are useful here.

`main` determines the data directory first, since settings are read only once.
"""

import gc
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from mercuria.cli import commands, completion, failures, root, standalone, standard_streams
from mercuria.config import current_settings, shed_foreign_variables

FAUST_LEVELS = {"debug": "debug", "info": "info", "warning": "warn", "error": "error"}

Command = Callable[[], None]


class ArgumentError(Exception):
    """The command line is invalid; the message says why."""


def main() -> None:
    """Run the `mercuria` command with the process's arguments."""
    standard_streams.settle()
    # Faust's own commands, such as a worker, end as Faust ends them.
    faust: list[Command] = []
    code = failures.run(partial(_main, faust.append))
    for run in faust:
        with suppress(KeyboardInterrupt):
            run()
    sys.exit(code)


def _main(hand_over: Callable[[Command], None]) -> object:
    """Run a command of Mercuria's, or hand over a command of Faust's."""
    if completion.is_asked():
        return completion.answer(root.command_line())
    words = sys.argv[1:] = _take_data_dir(sys.argv[1:])
    command = commands.command_of(words)
    if command is None or command in standalone.INSTEAD or _asks_for_mercuria(words, command):
        return root.command_line()(standalone_mode=False)
    # Imported modules stay in memory: garbage collection during the imports would take a fifth of the start.
    gc.disable()
    if command in commands.OF_FAUST:
        hand_over(_of_faust(command))
        return 0
    # This path needs neither Faust nor its app, which take seconds to load.
    line = root.command_line()
    line.add_command(commands.load(command), command)
    settings = current_settings()
    shed_foreign_variables(settings)
    gc.enable()
    if settings.log_level != "debug":
        failures.silence_clients()
    return line(standalone_mode=False)


def _of_faust(command: str) -> Command:
    """Return the function that runs a command of Faust's."""
    from faust.cli.faust import cli

    from mercuria.app import app, settings

    shed_foreign_variables(settings)
    cli.commands["worker"].help = commands.WORKER_HELP
    if command == "worker":
        # Faust's own default would hide the log lines that the setting asks for.
        sys.argv[1:1] = ["--loglevel", FAUST_LEVELS[settings.log_level]]
        if settings.writes_json_logs:
            # Faust's banner would appear between the log lines.
            sys.argv[1:1] = ["--quiet"]
    run: Command = app.main
    return run


def _asks_for_mercuria(words: Sequence[str], command: str) -> bool:
    """Return whether the help or the version is requested before the command, which then does not run."""
    return not {"--help", "--version"}.isdisjoint(words[: words.index(command)])


def _take_data_dir(arguments: list[str]) -> list[str]:
    """Move `--data-dir D` from the arguments, at any position among them, to the environment."""
    rest = []
    words = iter(arguments)
    for word in words:
        name, equals, value = word.partition("=")
        if name != "--data-dir":
            rest.append(word)
            continue
        directory = value if equals else next(words, "")
        if not directory:
            raise ArgumentError("--data-dir needs a directory")
        os.environ["MERCURIA_DATA_DIR"] = directory
    return rest
