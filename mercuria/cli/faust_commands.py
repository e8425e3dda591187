"""The commands that Faust runs: the worker, and its lists of agents and tables.

`mercuria` makes the app with the settings of the data directory, and hands all words over to Faust's own
command line, which parses its options.
"""

import gc
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from mercuria.cli.commands import OF_FAUST
from mercuria.cli.data_dir import new_option, with_data_dir
from mercuria.config import Settings, current_settings

if TYPE_CHECKING:
    import faust

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

_FAUST_LEVELS = {"debug": "debug", "info": "info", "warning": "warn", "error": "error"}


class Invocation(NamedTuple):
    """One call of `mercuria`: its words, and what runs a command of Faust's after the command line has ended."""

    words: Sequence[str]
    hand_over: Callable[[Callable[[], None]], None]


def command(name: str) -> click.Command:
    """Return the command that runs Faust's command `name`; Faust parses all options but `--data-dir`."""

    @with_data_dir
    @click.pass_obj
    def run(invocation: Invocation, /, **_: Any) -> None:
        # The imports leave no garbage. The worker turns the collection on again when it starts.
        gc.disable()
        settings = current_settings()
        options = {
            "args": list(invocation.words),
            "app": _app(settings),
            "default_map": _defaults(name, settings),
        }
        invocation.hand_over(partial(faust_command_line(), **options))

    return click.command(name, context_settings={"ignore_unknown_options": True}, add_help_option=False)(
        click.argument("words", nargs=-1, type=click.UNPROCESSED)(run)
    )


def faust_command_line() -> click.Group:
    """Return Faust's command line, of which `mercuria` has some commands, with `--data-dir`."""
    from faust.cli.faust import cli

    group: click.Group = cli
    commands = [group.commands[name] for name in OF_FAUST]
    for each in (group, *commands):
        if all(option.name != "data_dir" for option in each.params):
            each.params.append(new_option())
    group.commands["worker"].help = WORKER_HELP
    return group


def _app(settings: Settings) -> "faust.App":
    # The import takes seconds, and other commands do without.
    from mercuria.app import create_app

    return create_app(settings)


def _defaults(name: str, settings: Settings) -> dict[str, Any]:
    """Return the defaults of Faust's options, by command."""
    if name != "worker":
        return {}
    # Faust's own level would hide the log lines that the setting asks for, and its banner stand between them.
    return {
        "quiet": settings.writes_json_logs,
        "worker": {"loglevel": _FAUST_LEVELS[settings.log_level]},
    }
