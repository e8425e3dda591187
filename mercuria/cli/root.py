"""The `mercuria` command group: its help by groups, and the stored description of its commands and options.

The command line is read from `command_line.json`, without loading any command. Help and completion therefore
appear at once, while the commands themselves, with Faust, take seconds to load. `make commands` writes the
file, and a test compares it with the commands.
"""

import gc
import json
from collections.abc import Mapping
from difflib import get_close_matches
from importlib.resources import files
from typing import Any

import click

from mercuria import __version__
from mercuria.cli import commands, data_dir, faust_commands
from mercuria.cli.standalone import COMMANDS

FILE = "command_line.json"
SUMMARY_CHARACTERS = 64
"""The maximum length of a command's summary: with the longest name, it fits into 80 characters."""

_HELP = """\
Mercuria keeps people's money in wallets: a wallet and ledger backend on Kafka, in which each command has exactly one
effect. `mercuria up` starts all of it on this machine; the other commands look at it, check its books and administer
it.
"""
_HINT = "`mercuria COMMAND --help` says what a command does and takes."

Written = Mapping[str, Any]
"""The stored description of a command: `summary`, `options`, `arguments`, and `commands` if a group.

An option has `names`, `off` (the names that switch it off), its type as `takes`, and for options of
`mercuria` itself, its `help`. The type is `nothing`, `text`, `file`, `directory`, or the list of its choices.
"""


class Root(click.Group):
    """The group of all commands, whose help lists them by purpose."""

    def __init__(self, written: Written) -> None:
        self._faust_options = [_option(each) for each in written["options"]]
        known = {name: _command(name, each) for name, each in written["commands"].items()}
        known |= {each.name: each for each in COMMANDS if each.name is not None}
        self._own_options: list[click.Parameter] = [
            data_dir.new_option(),
            click.Option(
                ["--version"],
                is_flag=True,
                is_eager=True,
                expose_value=False,
                callback=_show_version,
                help="Show the version and exit.",
            ),
        ]
        super().__init__(
            "mercuria",
            commands={name: known[name] for name in commands.names() if name in known},
            params=[*self._own_options, *self._faust_options],
            # Faust's commands parse the options before their name themselves.
            callback=lambda **_: None,
            help=_HELP,
            epilog=_HINT,
        )

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands by groups, then the options."""
        shown = {name: each for name, each in self.commands.items() if not each.hidden}
        width = max(map(len, shown))
        for title, names in commands.GROUPS.items():
            rows = [(name.ljust(width), _summary(shown[name])) for name in names if name in shown]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)
        help_option = self.get_help_option(ctx)
        own = [*self._own_options, *([help_option] if help_option else [])]
        for title, options in (
            ("Options", own),
            ("Options for Faust's commands and the worker", self._faust_options),
        ):
            with formatter.section(title):
                formatter.write_dl([row for each in options if (row := each.get_help_record(ctx))])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the named command, and import it unless it is only completed; suggest a similar one."""
        name = args[0]
        if name not in self.commands and not name.startswith("-"):
            near = get_close_matches(name, [each for each, one in self.commands.items() if not one.hidden])
            hint = f" Did you mean {' or '.join(near)}?" if near else ""
            ctx.fail(f"No such command {name!r}.{hint}")
        if ctx.resilient_parsing:
            return super().resolve_command(ctx, args)
        return name, _imported(name) or self.commands.get(name), args[1:]


def command_line() -> Root:
    """Return the command line, whose commands are imported when they run."""
    return Root(json.loads(files("mercuria.cli").joinpath(FILE).read_text("utf-8")))


def _imported(name: str) -> click.Command | None:
    """Return the command itself; None if the stored one is all that there is."""
    if name in commands.OF_FAUST:
        return faust_commands.command(name)
    if name not in commands.MODULES:
        return None
    # Imported modules stay in memory: garbage collection during the imports would take a fifth of the start.
    gc.disable()
    try:
        return commands.load(name)
    finally:
        gc.enable()


def _summary(command: click.Command) -> str:
    if commands.lacks_extra(command.name or ""):
        return "Needs mercuria[embedded]."
    return command.get_short_help_str(SUMMARY_CHARACTERS)


def _command(name: str, written: Written) -> click.Command:
    params: list[click.Parameter] = [_option(each) for each in written["options"]]
    params += [
        click.Argument([each["name"]], type=_type(each["takes"]), required=False)
        for each in written["arguments"]
    ]
    if "commands" in written:
        below = {word: _command(word, each) for word, each in written["commands"].items()}
        return click.Group(name, commands=below, params=params, short_help=written["summary"])
    return click.Command(name, params=params, short_help=written["summary"])


def _option(written: Written) -> click.Option:
    *others, last = written["names"]
    off = "/".join(["", *written["off"]])
    takes = written["takes"]
    if takes == "nothing":
        return click.Option([*others, f"{last}{off}"], is_flag=True, help=written.get("help"))
    return click.Option([*others, last], type=_type(takes), help=written.get("help"))


def _type(takes: str | list[str]) -> click.ParamType:
    if isinstance(takes, list):
        return click.Choice(takes, case_sensitive=False)
    return {"file": click.Path(), "directory": data_dir.Directory()}.get(takes, click.STRING)


def _show_version(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        click.echo(f"mercuria {__version__}")
        ctx.exit()
