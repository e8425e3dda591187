"""`mercuria up`, `status` and `down`: the embedded stack on the command line.

These are plain click commands on Faust's group: none of them runs a Faust app in its own process.
"""

import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Self

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn
from rich.table import Table

from mercuria.cli import standard_streams
from mercuria.cli.data_dir import with_data_dir
from mercuria.cli.failures import EXIT_NO, EXIT_UNKNOWN, say
from mercuria.cli.options import examples, json_option
from mercuria.cli.preparing import prepare
from mercuria.cli.printable import printable, printable_lines
from mercuria.cli.showing import show_json, show_table
from mercuria.config import current_settings
from mercuria.embedded.directory import DataDirectory
from mercuria.embedded.errors import StackError, StackStopped
from mercuria.embedded.stack import WORKER_COMMAND, Stack
from mercuria.embedded.status import PartStatus, State, look, shut_down
from mercuria.kafka.topic_setup import TopicError
from mercuria.postgres.migrate import MigrationError

EXIT_STOPPED = 3


@click.command(epilog=examples("mercuria up", "mercuria up --workers 2 --data-dir /srv/mercuria"))
@with_data_dir
@click.option(
    "--http-port",
    type=click.IntRange(1, 65535),
    help="The API's port. Default: the one of last time, else 6066, else a free one.",
)
@click.option(
    "--workers",
    type=click.IntRange(0, 64),
    default=1,
    show_default=True,
    help="How many workers; 0 where they come with `mercuria join`.",
)
def up(http_port: int | None, workers: int) -> None:
    """Start Kafka, PostgreSQL, Redis and workers; Ctrl-C stops them.

    A server that a setting leads elsewhere is used there and not started. A part that ends is started again.
    """
    keep_up(current_settings().data_dir, http_port=http_port, workers=workers, prepare=prepare)


@click.command()
@with_data_dir
@json_option
def status(as_json: bool) -> None:
    """Show what runs.

    The exit code is 0 when all is up, 1 when a part is not, and 3 when the stack is stopped.
    """
    directory = DataDirectory(current_settings().data_dir)
    parts = look(directory)
    if as_json:
        show_json([asdict(part) for part in parts])
    elif _is_stopped(parts):
        click.echo(f"Mercuria is stopped in {directory.path}.")
    else:
        show_table(_table(parts))
    sys.exit(EXIT_STOPPED if _is_stopped(parts) else _exit_code(parts))


@click.command()
@with_data_dir
def down() -> None:
    """Stop what `mercuria up` started, and wait until it is gone."""
    directory = DataDirectory(current_settings().data_dir)
    with failures_as_sentences():
        ran = shut_down(directory, click.echo)
        click.echo("Stopped." if ran else f"Nothing runs in {directory.path}.")


def keep_up(
    data_dir: Path,
    *,
    http_port: int | None = None,
    workers: int = 1,
    prepare: Callable[[Mapping[str, str]], None] | None,
    worker_command: Sequence[str] = WORKER_COMMAND,
) -> None:
    """Start a stack, show its progress, and keep it running until a signal arrives.

    A failure prints a sentence and gives exit code 2.
    """
    with failures_as_sentences(), _Screen() as screen:
        stack = Stack(
            data_dir,
            workers=workers,
            http_port=http_port,
            prepare=prepare,
            worker_command=worker_command,
            on_progress=screen.say,
            on_download=screen.show_download,
        )
        with _signals_to(stack.interrupt):
            try:
                with stack:
                    screen.say(_ready(stack.url, workers))
                    stack.wait()
                    screen.say("Stopping.")
            except StackStopped:
                pass
        screen.say("Stopped.")


@contextmanager
def failures_as_sentences() -> Iterator[None]:
    """Print a failure as one sentence, and end with exit code 2."""
    try:
        yield
    except (StackError, TopicError, MigrationError) as error:
        say(str(error))
        sys.exit(EXIT_UNKNOWN)


@contextmanager
def _signals_to(interrupt: Callable[[], None]) -> Iterator[None]:
    """Have Ctrl-C, SIGTERM and a closed terminal call `interrupt`, each time that they arrive."""

    def handle(_number: int, _frame: FrameType | None) -> None:
        interrupt()

    # `nohup` starts a program that must not react to the end of the terminal.
    hangup = () if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (signal.SIGHUP,)
    numbers = (signal.SIGINT, signal.SIGTERM, *hangup)
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Screen:
    """The output of `mercuria up`: sentences, and a progress bar while the jars download."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
        columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
        self._progress = Progress(*columns, console=self._console, transient=True)
        self._download: TaskID | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # If no bar was shown, its end would be an empty line.
        if self._download is not None:
            self._progress.stop()

    def say(self, sentence: str) -> None:
        """Print a sentence, above the bar if there is one; continue if it cannot be printed."""
        try:
            self._console.print(printable_lines(sentence))
        except (OSError, SystemExit):  # Rich exits the program if a pipe is closed.
            standard_streams.forget()

    def show_download(self, done: int, total: int) -> None:
        """Update the bar."""
        if self._download is None:
            self.say(f"Downloading Kafka once: {total / 1e6:.0f} MB. Later starts need no network.")
            self._download = self._progress.add_task("Downloading Kafka", total=total)
            self._progress.start()
        self._progress.update(self._download, completed=done)
        if done == total:
            self._progress.stop()


def _ready(url: str, workers: int) -> str:
    if workers:
        return f"Mercuria is ready at {url}"
    return f"The servers are ready. Workers that `mercuria join` starts answer at {url}"


def _is_stopped(parts: list[PartStatus]) -> bool:
    return all(part.state is State.STOPPED for part in parts)


def _exit_code(parts: list[PartStatus]) -> int:
    return 0 if all(part.state in (State.UP, State.ELSEWHERE) for part in parts) else EXIT_NO


def _table(parts: list[PartStatus]) -> Table:
    table = Table("part", "state", "pid", "address", "uptime", "memory")
    for part in parts:
        table.add_row(
            printable(part.name),
            part.state,
            str(part.pid or ""),
            part.address or "",
            "" if part.uptime_s is None else _duration(part.uptime_s),
            "" if part.memory_bytes is None else f"{part.memory_bytes / 2**20:.0f} MiB",
        )
    return table


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"
