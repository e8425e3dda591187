"""The status of the parts in a data directory, from its pid files and processes, and how to stop them."""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum

import psutil

from mercuria.config import read_stack_env
from mercuria.embedded import processes
from mercuria.embedded.directory import PORTS_FILE, DataDirectory
from mercuria.embedded.errors import StackError
from mercuria.embedded.orphans import stop_orphans
from mercuria.embedded.ports import LOOPBACK, accepts, read_ports

DOWN_TIMEOUT_S = 90


class State(StrEnum):
    """The state of a part."""

    UP = "up"
    """The part runs and accepts connections."""
    STARTING = "starting"
    """The part runs, and accepts no connections yet."""
    ORPHANED = "orphaned"
    """The part runs, but the `mercuria up` that started it does not."""
    DOWN = "down"
    """The part should run, and does not."""
    STOPPED = "stopped"
    """The part does not run, and is not needed."""
    ELSEWHERE = "elsewhere"
    """The environment names an external server, which `mercuria up` uses."""


@dataclass(frozen=True, slots=True)
class PartStatus:
    """One part, at one moment."""

    name: str
    state: State
    address: str | None = None
    pid: int | None = None
    uptime_s: float | None = None
    memory_bytes: int | None = None


def look(directory: DataDirectory) -> list[PartStatus]:
    """Return the status of `up` itself and of every part."""
    up = directory.up()
    ports = read_ports(directory.path / PORTS_FILE)
    recorded = directory.recorded_parts()
    servers = ["kafka", "postgres", "redis"]
    workers = [name for name in recorded if name.startswith("worker-")]
    url = read_stack_env(directory.path).get("MERCURIA_URL")
    own = State.UP if directory.is_ready() else State.STARTING
    parts = [_part(directory, name, ports, None if up is None else own) for name in servers + workers]
    # Workers that `mercuria join` has started have no pid file.
    joined = {name: process for name, process in processes.marked(directory.path) if name not in recorded}
    parts += [
        _found(name, process, _port(name, ports), is_orphan=up is None)
        for name, process in sorted(joined.items())
        if name.startswith("worker-")
    ]
    if up is None:
        return [PartStatus("up", State.STOPPED), *parts]
    return [_running("up", own, up, url), *parts]


def shut_down(directory: DataDirectory, tell: Callable[[str], None]) -> bool:
    """Stop the `mercuria up` of a directory, or the remains of a killed one; return whether anything ran.

    Raises:
        StackError: a process does not end.
    """
    up = directory.up()
    if up is not None:
        tell(f"Stopping `mercuria up` (process {up.pid}).")
        processes.stop(up, timeout_s=DOWN_TIMEOUT_S)
    if not directory.path.is_dir():
        return False
    if directory.is_taken():
        raise StackError(f"`mercuria up` in {directory.path} does not end.")
    with directory.lock():
        orphans = stop_orphans(directory, tell)
    return up is not None or bool(orphans)


def _part(directory: DataDirectory, name: str, ports: dict[str, int], up: State | None) -> PartStatus:
    """Return the status of one part; `up` is the state of its `mercuria up`, None if there is none."""
    port = _port(name, ports)
    address = f"{LOOPBACK}:{port}" if port else None
    process = processes.find_part(directory.path, name)
    if process is None:
        wanted = processes.read_pid(directory.pid_file(name)) is not None
        if up is None:
            return PartStatus(name, State.STOPPED, address)
        if not wanted:
            return PartStatus(name, State.ELSEWHERE if up is State.UP else State.STARTING)
        return PartStatus(name, State.DOWN, address)
    return _found(name, process, port, is_orphan=up is None)


def _port(name: str, ports: dict[str, int]) -> int | None:
    return ports.get(name) or (ports.get("http") if name.startswith("worker-") else None)


def _found(name: str, process: psutil.Process, port: int | None, *, is_orphan: bool) -> PartStatus:
    """Return the status of a part that runs."""
    address = f"{LOOPBACK}:{port}" if port else None
    if is_orphan:
        return _running(name, State.ORPHANED, process, address)
    answers = port is not None and accepts(LOOPBACK, port)
    return _running(name, State.UP if answers else State.STARTING, process, address)


def _running(name: str, state: State, process: psutil.Process, address: str | None) -> PartStatus:
    with suppress(psutil.Error):
        family = [process] if name == "up" else [process, *process.children(recursive=True)]
        memory = sum(_memory(member) for member in family)
        return PartStatus(name, state, address, process.pid, time.time() - process.create_time(), memory)
    return PartStatus(name, State.DOWN, address)


def _memory(process: psutil.Process) -> int:
    with suppress(psutil.Error):
        rss: int = process.memory_info().rss
        return rss
    return 0
