"""A worker: the process that runs Mercuria's agents and answers HTTP."""

import http.client
import json
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress

from mercuria.config import EVERY_ADDRESS
from mercuria.embedded.directory import DataDirectory
from mercuria.embedded.part import Part
from mercuria.embedded.ports import LOOPBACK

PROBE_TIMEOUT_S = 2


class Worker(Part):
    """One worker. Its own port belongs to it alone; all workers share the HTTP port."""

    title = "A worker"
    start_timeout_s = 180  # The worker may have to restore its tables from the log first.

    def __init__(
        self,
        name: str,
        directory: DataDirectory,
        port: int,
        interrupted: threading.Event,
        command: Sequence[str],
        environ: Mapping[str, str],
    ) -> None:
        super().__init__(name, directory, port, interrupted)
        self.title = name.capitalize()  # type: ignore[misc]  # several workers, each under its own name
        self._command = list(command)
        self._environ = dict(environ)

    def command(self) -> list[str]:
        return self._command

    def environment(self) -> dict[str, str]:
        return self._environ | {"MERCURIA_WORKER": self.name, "MERCURIA_WORKER_PORT": str(self.port)}

    def probe(self) -> bool:
        return self._ask()[0] == 200

    def unready_reasons(self) -> list[str]:
        """Return why the worker is not ready, in its own words."""
        with suppress(ValueError, AttributeError):
            return [str(reason) for reason in json.loads(self._ask()[1]).get("reasons", [])]
        return ["it does not answer"]

    def _ask(self) -> tuple[int, bytes]:
        host = reachable_host(self._environ)
        connection = http.client.HTTPConnection(host, self.port, timeout=PROBE_TIMEOUT_S)
        try:
            connection.request("GET", "/health/ready")
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            return 0, b""
        finally:
            connection.close()


def reachable_host(environ: Mapping[str, str]) -> str:
    """Return the address at which a worker answers on this machine."""
    host = environ.get("MERCURIA_HTTP_HOST") or LOOPBACK
    return LOOPBACK if host in EVERY_ADDRESS else host
