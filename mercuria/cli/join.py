"""`mercuria join`: one more worker beside the servers of a `mercuria up`.

It is meant for tools that manage single processes. The command becomes the worker, so signals, logs and exit
codes pass directly between the worker and its starter.
"""

import os
import signal
import sys
import time

import click
from filelock import FileLock

from mercuria.cli.data_dir import with_data_dir
from mercuria.cli.options import examples
from mercuria.cli.up import failures_as_sentences
from mercuria.config import current_settings
from mercuria.embedded import processes
from mercuria.embedded.directory import PORTS_FILE, PRIVATE, DataDirectory
from mercuria.embedded.errors import StackError
from mercuria.embedded.ports import Ports

LOOK_EVERY_S = 0.2
JOIN_LOCK = "join.lock"
MOST = 1024


@click.command(epilog=examples("mercuria join", "mercuria join --number 3"))
@with_data_dir
@click.option(
    "--number",
    type=click.IntRange(1, MOST),
    help="Of its name: 2 for worker-2. Default: the first that no running worker has.",
)
def join(number: int | None) -> None:
    """Run one more worker beside the servers of a `mercuria up`.

    That is a `mercuria up --workers 0`, or one with two workers or more; where it does not run yet, the command waits
    for it. Ctrl-C or SIGTERM takes the worker away again.
    """
    # Until the worker handles Ctrl-C, it must not print an error.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    directory = DataDirectory(current_settings().data_dir)
    with failures_as_sentences():
        _await_servers(directory)
        # The lock file is closed when the command becomes the worker; from then on, the worker is found by its
        # environment.
        with FileLock(directory.path / JOIN_LOCK, mode=PRIVATE):
            environ = _environment(directory, number)
            click.echo(f"{environ['MERCURIA_WORKER'].capitalize()} is starting.")
            sys.stdout.flush()
            os.execve(sys.executable, [sys.executable, "-m", "mercuria", "--quiet", "worker"], environ)  # noqa: S606


def _await_servers(directory: DataDirectory) -> None:
    """Wait until the `mercuria up` of the directory is ready."""
    is_reported = False
    # The order matters: a start removes the mark of an earlier one before it writes its pid.
    while directory.up() is None or not directory.is_ready():
        if not is_reported:
            click.echo(f"Waiting for the servers of `mercuria up` in {directory.path}.")
            is_reported = True
        time.sleep(LOOK_EVERY_S)


def _environment(directory: DataDirectory, number: int | None) -> dict[str, str]:
    """Return the environment of the worker. It reads its other settings from stack.env."""
    running = {name: process.pid for name, process in processes.marked(directory.path)}
    name = f"worker-{number or next(each for each in range(1, MOST) if f'worker-{each}' not in running)}"
    if name in running:
        raise StackError(f"{name.capitalize()} of {directory.path} runs already (process {running[name]}).")
    ports = Ports(directory.path / PORTS_FILE)
    if "worker-1" in running and ports.get("worker-1") is None:
        raise StackError(
            f"`mercuria up` in {directory.path} runs one worker, which shares its port with no other:"
            " start it with `--workers 0`, or with the number of workers that you want."
        )
    own = {"MERCURIA_WORKER": name, "MERCURIA_WORKER_PORT": str(ports.choose(name))}
    # Among the output of other processes, a worker prints only when it is ready, and what is wrong.
    log = {
        "MERCURIA_LOG_LEVEL": os.environ.get("MERCURIA_LOG_LEVEL") or "warning",
        "MERCURIA_LOG_FORMAT": os.environ.get("MERCURIA_LOG_FORMAT") or "console",
    }
    where = {"MERCURIA_DATA_DIR": str(directory.path)}
    return os.environ | where | log | own | processes.mark(directory.path, name)
