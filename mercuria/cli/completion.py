"""`mercuria completion`: shell completion of commands and options.

The scripts are click's. When you press the Tab key, they start `mercuria` with a variable that names the
request. The answer comes from the stored command line: neither Faust nor a command is imported, and no file
or connection is opened.
"""

import os

import click
from click.shell_completion import get_completion_class, shell_complete

VARIABLE = "_MERCURIA_COMPLETE"
PROGRAM = "mercuria"
SHELLS = ("bash", "zsh", "fish")


@click.command(
    epilog="""\
\b
For every new shell:
  bash  echo 'eval "$(mercuria completion bash)"' >>~/.bashrc
  zsh   echo 'eval "$(mercuria completion zsh)"' >>~/.zshrc
        (after the line that calls compinit)
  fish  mercuria completion fish >~/.config/fish/completions/mercuria.fish
"""
)
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print the script that completes commands in bash, zsh or fish.

    `mercuria` has to be on the PATH: activate its virtual environment first. Bash has to be 4.4 or later.
    """
    kind = get_completion_class(shell)
    assert kind is not None, "click has these shells"
    click.echo(kind(click.Group(), {}, PROGRAM, VARIABLE).source())


def is_asked() -> bool:
    """Return whether a shell has started this process to complete a word."""
    return bool(os.environ.get(VARIABLE))


def answer(command_line: click.Command) -> int:
    """Print the completions that the shell requests, and return the exit code."""
    return shell_complete(command_line, {}, PROGRAM, VARIABLE, os.environ[VARIABLE])
