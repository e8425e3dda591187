"""`--data-dir`: an option of `mercuria`, of its groups and of its commands, and the settings of that directory.

The option may stand at any position. Of several, the one of the innermost command counts.
"""

import os
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import click

from mercuria.cli.failures import silence_clients
from mercuria.config import Settings, shed_foreign_variables, use_settings

HELP = "Where the stack keeps everything. Default: MERCURIA_DATA_DIR, else ./data."

P = ParamSpec("P")
R = TypeVar("R")


class Directory(click.Path):
    """The name of a directory. Whether it can be used is up to the command, which has a sentence for it."""

    def __init__(self) -> None:
        super().__init__(file_okay=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not value:
            self.fail("It needs the name of a directory.", param, ctx)
        return value


def with_data_dir(function: Callable[P, R]) -> Callable[P, R]:
    """Give a command the option, and have it run with the settings of the data directory."""

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        settings = settings_of(click.get_current_context())
        use_settings(settings)
        shed_foreign_variables(settings)
        if settings.log_level != "debug":
            silence_clients()
        return function(*args, **kwargs)

    return data_dir_option(run)


def settings_of(ctx: click.Context) -> Settings:
    """Return the settings of the data directory that the options name, else of the environment's.

    Raises:
        SettingError: a value is invalid.
    """
    chosen = ctx.meta.get(__name__)
    return Settings.from_env(os.environ if chosen is None else {**os.environ, "MERCURIA_DATA_DIR": chosen})


def _remember(ctx: click.Context, _param: click.Parameter, value: str | None) -> None:
    # All contexts of a command line share `meta`, and the inner commands are parsed last.
    if value is not None:
        ctx.meta[__name__] = value


_NAME = "--data-dir"
_OPTION: dict[str, Any] = {
    "type": Directory(),
    "callback": _remember,
    "expose_value": False,
    "help": HELP,
}

data_dir_option = click.option(_NAME, **_OPTION)
"""The option alone, for groups: their commands run with the settings."""


def new_option() -> click.Option:
    """Return the option as a parameter, for commands that are not made by decorators."""
    return click.Option([_NAME], **_OPTION)
