"""Processes that outlive their starter: their pid files, and how to find and stop them.

A pid file holds the pid and nothing else, so that `kill $(cat kafka.pid)` works. Pids are reused after a
crash or a reboot. A process therefore counts as a part only if its environment carries the mark of this
installation.
"""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import psutil

from mercuria.embedded.files import open_privately

MARK = "MERCURIA_PART"


def mark(data_dir: Path, name: str) -> dict[str, str]:
    """Return the variable that distinguishes a part of one installation from all other processes."""
    return {MARK: f"{name}@{data_dir}"}


def write_pid(file: Path, pid: int) -> None:
    """Write a pid file.

    It is not synced: after a power failure, no pid is valid.
    """
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    with open(temporary, "w", encoding="ascii", opener=open_privately) as written:
        written.write(f"{pid}\n")
    temporary.replace(file)


def read_pid(file: Path) -> int | None:
    """Return the pid in `file`, or None if there is none."""
    with suppress(OSError, ValueError):
        return int(file.read_text("ascii"))
    return None


def find_part(data_dir: Path, name: str) -> psutil.Process | None:
    """Return the running process of the part `name` if its pid file names one that carries its mark."""
    pid = read_pid(data_dir / f"{name}.pid")
    if pid is None:
        return None
    with suppress(psutil.Error, OSError):
        process = psutil.Process(pid)
        if process.environ().get(MARK) == f"{name}@{data_dir}" and is_running(process):
            return process
    return None


def marked(data_dir: Path) -> list[tuple[str, psutil.Process]]:
    """Return the parts that run for a directory, by name, without processes that they started themselves.

    A server leads its session. A worker that a shell has started has no session of its own.
    """
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            name, _, where = process.environ().get(MARK, "").partition("@")
            leads = os.getsid(process.pid) == process.pid or name.startswith("worker-")
            if where == str(data_dir) and leads and is_running(process):
                found.append((name, process))
    pids = {process.pid for _, process in found}
    return [(name, process) for name, process in found if process.ppid() not in pids]


def is_running(process: psutil.Process) -> bool:
    """Return whether a process runs; a process that waits to be reaped does not."""
    with suppress(psutil.NoSuchProcess):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False


def wait_gone(process: psutil.Process, timeout_s: float) -> bool:
    """Wait until a process has ended; return False if it still runs after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while is_running(process):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def stop(process: psutil.Process, with_signal: int = signal.SIGTERM, timeout_s: float = 20) -> None:
    """Ask a process to stop, and kill it if it still runs after `timeout_s`."""
    with suppress(psutil.NoSuchProcess):
        process.send_signal(signal.SIGCONT)  # A suspended process would not receive the next signal.
        process.send_signal(with_signal)
        if not wait_gone(process, timeout_s):
            process.kill()
            wait_gone(process, 10)


def working_in(directory: Path, program: str) -> list[psutil.Process]:
    """Return the processes of `program` whose working directory is `directory`."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.name() == program and process.cwd() == str(directory.resolve()):
                found.append(process)
    return found
