"""Processes that a killed `mercuria up` left running, and how to stop them."""

import signal
from collections.abc import Callable
from functools import partial

import psutil

from mercuria.embedded import processes
from mercuria.embedded.concurrency import run_concurrently
from mercuria.embedded.directory import DataDirectory

# PostgreSQL handles SIGTERM by waiting until the last client has disconnected.
STOP_SIGNALS = {"postgres": signal.SIGINT}
STOP_TIMEOUT_S = 30


def stop_orphans(directory: DataDirectory, report: Callable[[str], None]) -> list[str]:
    """Stop all parts that still run in `directory`, workers first, and return their names.

    The parts are stopped rather than reused: a fresh start takes seconds, and then every part runs as this
    version of Mercuria starts it. The caller must hold the directory's lock.
    """
    # Pid files are not sufficient: `mercuria up` may have been killed before it wrote the file of a part.
    running = processes.marked(directory.path)
    for name, process in running:
        report(f"An earlier `mercuria up` was killed and left {name} (process {process.pid}); stopping it.")
    workers = [part for part in running if part[0].startswith("worker-")]
    servers = [part for part in running if part not in workers]
    for group in (workers, servers):
        run_concurrently(partial(_stop, process, name) for name, process in group)
    directory.remove_pid_files(directory.recorded_parts())
    return [name for name, _ in running]


def _stop(process: psutil.Process, name: str) -> None:
    processes.stop(process, STOP_SIGNALS.get(name, signal.SIGTERM), STOP_TIMEOUT_S)
