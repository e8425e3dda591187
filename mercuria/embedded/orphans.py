"""Processes that a killed `mercuria up` left running, and how to stop them."""

import signal
from collections.abc import Callable
from functools import partial

import psutil

from mercuria.embedded import processes
from mercuria.embedded.directory import DataDirectory
from mercuria.embedded.together import all_at_once

# PostgreSQL's own meaning of SIGTERM is to wait until the last client has gone.
STOP_SIGNALS = {"postgres": signal.SIGINT}
STOP_TIMEOUT_S = 30


def stop_orphans(directory: DataDirectory, tell: Callable[[str], None]) -> list[str]:
    """Stop all parts that still run in `directory`, workers first, and return their names.

    They are stopped rather than taken over: a fresh start takes seconds, and then everything is known to be as
    this version of Mercuria starts it. The caller holds the directory's lock.
    """
    names = directory.recorded_parts()
    running = {name: found for name in names if (found := processes.find_part(directory.path, name))}
    for name, process in running.items():
        tell(f"An earlier `mercuria up` was killed and left {name} (process {process.pid}); stopping it.")
    workers = {name for name in running if name.startswith("worker-")}
    for group in (workers, running.keys() - workers):
        all_at_once(partial(_stop, running[name], name) for name in sorted(group))
    directory.remove_pid_files(names)
    return list(running)


def _stop(process: psutil.Process, name: str) -> None:
    processes.stop(process, STOP_SIGNALS.get(name, signal.SIGTERM), STOP_TIMEOUT_S)
