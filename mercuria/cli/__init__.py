"""The `mercuria` command: Faust's own command line with Mercuria's commands beside it.

One file a command. `main` finds the data directory first, since the Faust app reads its settings when it is
imported.
"""

import os
import sys
from contextlib import suppress

from mercuria.config import SettingError

FAUST_LEVELS = {"debug": "debug", "info": "info", "warning": "warn", "error": "error"}


def main() -> None:
    """Run the `mercuria` command with the process's arguments."""
    sys.argv[1:] = _take_data_dir(sys.argv[1:])
    try:
        from mercuria.app import app, settings
        from mercuria.cli import commands  # noqa: F401  registers the commands with Faust's group
        from mercuria.cli.preparing import shed_foreign_variables
    except SettingError as error:
        sys.exit(f"mercuria: {error}")
    shed_foreign_variables(settings)
    if "worker" in sys.argv:
        # Faust's own default would hide what the setting asks for.
        sys.argv[1:1] = ["--loglevel", FAUST_LEVELS[settings.log_level]]
        if settings.writes_json_logs:
            # Faust's banner would stand between the lines.
            sys.argv[1:1] = ["--quiet"]
    with suppress(KeyboardInterrupt):
        app.main()


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
