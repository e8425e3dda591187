"""Ports on loopback: free ports, those of the last start, and the processes that hold them."""

import json
import random
import socket
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import psutil

from mercuria.embedded.errors import StackError
from mercuria.embedded.files import write_atomically

LOOPBACK = "127.0.0.1"

# These ports are below the ephemeral range of Linux (32768) and macOS (49152). In that range, a client that reconnects
# to a dead server's port can be assigned this very port, connects to itself, and the server cannot return.
FIRST, LAST = 20_000, 29_999


class Ports:
    """The ports of one installation, by the name of the listener; a file keeps them across starts."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._ports = read_ports(file)

    def get(self, name: str) -> int | None:
        """Return the port that `name` had at the last start."""
        return self._ports.get(name)

    def choose(self, name: str, preferred: int | None = None) -> int:
        """Return the first free port among the last one of `name`, `preferred`, and any other."""
        others = {port for other, port in self._ports.items() if other != name}
        for port in (self._ports.get(name), preferred):
            if port is not None and port not in others and is_free(port):
                return self.remember(name, port)
        return self.remember(name, free_port(others))

    def remember(self, name: str, port: int) -> int:
        """Store `port` as the port of `name`, and return it."""
        if self._ports.get(name) != port:
            self._ports[name] = port
            self._write()
        return port

    def forget(self, name: str) -> None:
        """Release the port of `name`."""
        if self._ports.pop(name, None) is not None:
            self._write()

    def _write(self) -> None:
        write_atomically(self._file, json.dumps(self._ports, indent=1) + "\n")


def read_ports(file: Path) -> dict[str, int]:
    """Return the stored ports; none if the file is missing or damaged."""
    with suppress(OSError, ValueError):
        content = json.loads(file.read_text("utf-8"))
        if isinstance(content, dict):
            return {name: port for name, port in content.items() if isinstance(port, int)}
    return {}


def free_port(without: Iterable[int] = ()) -> int:
    """Return a loopback port on which no process listens."""
    taken = set(without)
    for port in random.sample(range(FIRST, LAST + 1), LAST + 1 - FIRST):
        if port not in taken and is_free(port):
            return port
    raise StackError(f"No port from {FIRST} to {LAST} is free on {LOOPBACK}.")


def hold(port: int, host: str) -> socket.socket:
    """Reserve `port` for processes that share it (SO_REUSEPORT) while the socket is open.

    It accepts no connections.

    Raises:
        OSError: another process has the port.
    """
    held = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        # With SO_REUSEADDR, lingering connections of the last server do not take the port. It is for the bind alone:
        # a socket that keeps it leaves the port, while no process listens, to any that sets it.
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind((host, port))
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    except OSError:
        held.close()
        raise
    return held


def is_free(port: int, host: str = LOOPBACK) -> bool:
    """Return whether a server could listen on `port` now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as server:
        # As servers do: lingering connections of a server that has just died do not make a port taken.
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind((host, port))
            server.listen(1)
        except OSError:
            return False
        return True


def holder(port: int) -> str | None:
    """Return a description of the process that listens on `port`, as far as this user may know it."""
    with suppress(psutil.Error):
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN
            if listens and connection.laddr and connection.laddr.port == port and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (process {connection.pid})"
    return None


def accepts(host: str, port: int, timeout_s: float = 1.0) -> bool:
    """Return whether a process accepts connections on `port`."""
    try:
        with socket.create_connection((host, port), timeout_s):
            return True
    except OSError:
        return False
