"""The `mercuria` command: Faust's own command line with Mercuria's commands beside it.

One file a command. `main` finds the data directory first, since the Faust app reads its settings when it is
imported.
"""

import gc
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from mercuria import __version__
from mercuria.config import SettingError, shed_foreign_variables

FAUST_LEVELS = {"debug": "debug", "info": "info", "warning": "warn", "error": "error"}


def main() -> None:
    """Run the `mercuria` command with the process's arguments."""
    sys.argv[1:] = _take_data_dir(sys.argv[1:])
    if sys.argv[1:] == ["--version"]:
        # Faust's own option tells Faust's.
        print(f"mercuria {__version__}")
        return
    # What is imported stays: to look for garbage in it meanwhile takes a fifth of the start.
    gc.disable()
    try:
        from faust.cli.faust import cli

        from mercuria.app import app, settings
        from mercuria.cli import commands

        command = commands.command_of(sys.argv[1:])
        if command in commands.MODULES or command is None:
            commands.register(command)
    except SettingError as error:
        sys.exit(f"mercuria: {error}")
    shed_foreign_variables(settings)
    run: Callable[[], None] = app.main
    if command in commands.MODULES:
        gc.enable()
        # They need neither agents nor views, which take as long to load as all else.
        run = partial(cli, app=app)
    elif command == "worker":
        # Faust's own default would hide what the setting asks for.
        sys.argv[1:1] = ["--loglevel", FAUST_LEVELS[settings.log_level]]
        if settings.writes_json_logs:
            # Faust's banner would stand between the lines.
            sys.argv[1:1] = ["--quiet"]
    with suppress(KeyboardInterrupt):
        run()


def _take_data_dir(arguments: list[str]) -> list[str]:
    """Move `--data-dir D` out of the arguments and into the environment, wherever it stands among them."""
    rest = []
    words = iter(arguments)
    for word in words:
        name, equals, value = word.partition("=")
        if name != "--data-dir":
            rest.append(word)
            continue
        directory = value if equals else next(words, "")
        if not directory:
            sys.exit("mercuria: --data-dir needs a directory")
        os.environ["MERCURIA_DATA_DIR"] = directory
    return rest
