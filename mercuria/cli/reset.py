"""`mercuria reset`: deletes the tables of a stopped worker, which restores them from Kafka at its next start.

Faust's command of the same name also deletes them under a running worker, which must then be restarted.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import click

from mercuria.cli.commands import has_extra
from mercuria.cli.data_dir import with_data_dir
from mercuria.cli.options import examples
from mercuria.config import Settings, current_settings

TABLES = Path("v1") / "tables"


class WorkerRuns(Exception):
    """The worker runs, so its tables stay; the message is a sentence."""


@click.command(
    epilog=examples(
        "mercuria down && mercuria reset && mercuria up",
        "MERCURIA_WORKER=worker-2 mercuria reset",
    )
)
@with_data_dir
def reset() -> None:
    """Delete the tables of a stopped worker.

    The worker is `worker-1`, or MERCURIA_WORKER. It makes its tables again from Kafka at its next start, which takes
    the longer the more wallets there are. The exit code is 2 where the worker runs.
    """
    settings = current_settings()
    tables = settings.worker_dir / TABLES
    with _stopped(settings, tables):
        if not tables.exists():
            click.echo(f"There are no tables in {tables}.")
            return
        shutil.rmtree(tables)
    click.echo(f"Deleted {tables}. {settings.worker.capitalize()} makes the tables again from Kafka.")


@contextmanager
def _stopped(settings: Settings, tables: Path) -> Iterator[None]:
    """Hold the tables in the block, so that no worker can open them.

    Raises:
        WorkerRuns: a worker has them open.
    """
    if (number := _process_of(settings)) is not None:
        raise WorkerRuns(_running(settings, f" (process {number})"))
    with ExitStack() as opened:
        for path in sorted(tables.glob("*.db/LOCK")):
            lock = opened.enter_context(path.open("r+b"))
            try:
                # The lock is the one that RocksDB uses.
                fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB, 0, 0, os.SEEK_SET)
            except BlockingIOError:
                raise WorkerRuns(_running(settings, "")) from None
        yield


def _process_of(settings: Settings) -> int | None:
    """Return the pid of the worker that `mercuria up` has started; it may not have opened its tables yet."""
    if not has_extra():
        return None
    from mercuria.embedded import processes

    running = {name: process.pid for name, process in processes.marked(settings.data_dir.resolve())}
    return running.get(settings.worker)


def _running(settings: Settings, which: str) -> str:
    return (
        f"{settings.worker.capitalize()} of {settings.data_dir} runs{which}, and its tables stay as they are:"
        " stop it first, with `mercuria down` or as it was started"
    )
