"""The command line, written down: `make commands` writes it into mercuria/cli/command_line.json.

From there come the help of `mercuria` and what a shell completes. A test compares the file with the commands.
"""

import json
import sys
from pathlib import Path
from typing import Any

import click

from mercuria.cli import commands, faust_commands, root

FILE = Path(root.__file__).with_name(root.FILE)


def written() -> dict[str, Any]:
    """Return the command line of this installation as it is written down."""
    return {
        # Mercuria has its own version, help and data directory.
        "options": [
            {**_option(each), "help": getattr(each, "help", None)}
            for each in faust_commands.faust_command_line().params
            if isinstance(each, click.Option) and each.name not in ("version", "data_dir")
        ],
        "commands": {name: _command(each) for name, each in all_commands().items()},
    }


def all_commands() -> dict[str, click.Command]:
    """Return Mercuria's commands and those of Faust's that fit, by name."""
    cli = faust_commands.faust_command_line()
    theirs = {name: cli.commands[name] for name in commands.OF_FAUST}
    found = {name: commands.load(name) for name in commands.MODULES} | theirs
    return {name: found[name] for name in commands.names() if name in found}


def as_text(command_line: dict[str, Any]) -> str:
    """Return what the file holds."""
    return json.dumps(command_line, indent=1) + "\n"


def _command(command: click.Command) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "summary": command.get_short_help_str(root.SUMMARY_CHARACTERS),
        "options": [_option(each) for each in command.params if isinstance(each, click.Option)],
        "arguments": [
            {"name": each.name, "takes": _takes(each.type)}
            for each in command.params
            if isinstance(each, click.Argument)
        ],
    }
    if isinstance(command, click.Group):
        entry["commands"] = {name: _command(each) for name, each in command.commands.items()}
    return entry


def _option(option: click.Option) -> dict[str, Any]:
    return {
        # The long name comes last: it is the one that can be switched off.
        "names": sorted(option.opts, key=len),
        "off": option.secondary_opts,
        "takes": "nothing" if option.is_flag else _takes(option.type),
    }


def _takes(type_: click.ParamType) -> str | list[str]:
    if isinstance(type_, click.Choice):
        return [str(choice) for choice in type_.choices]
    if isinstance(type_, click.Path | click.File):
        return "directory" if isinstance(type_, click.Path) and not type_.file_okay else "file"
    return "text"


def main() -> None:
    """Write the file."""
    FILE.write_text(as_text(written()), "utf-8")
    sys.stdout.write(f"{FILE.name} is written.\n")


if __name__ == "__main__":
    main()
