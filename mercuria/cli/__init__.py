"""The `mercuria` command: Mercuria's commands, one file each, and Faust's commands that are useful here."""

import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from mercuria.cli import completion, failures, root, standard_streams
from mercuria.cli.faust_commands import Invocation


def main() -> None:
    """Run the `mercuria` command with the process's arguments."""
    standard_streams.settle()
    faust: list[Callable[[], None]] = []
    code = failures.run(partial(_main, Invocation(sys.argv[1:], faust.append)))
    # Faust's own commands, such as a worker, end as Faust ends them.
    for run in faust:
        with suppress(KeyboardInterrupt):
            run()
    sys.exit(code)


def _main(invocation: Invocation) -> object:
    line = root.command_line()
    if completion.is_asked():
        return completion.answer(line)
    return line.main(args=list(invocation.words), obj=invocation, standalone_mode=False)
