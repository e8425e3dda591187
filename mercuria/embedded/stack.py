"""The embedded stack: Kafka, PostgreSQL, Redis and workers, and the order in which they start and stop.

    with Stack(Path("data"), workers=1) as stack:
        ...  # clients find everything by stack.env

Both `mercuria up` and the tests start it like this. What the environment decides is in `environment.py`, the
parts are in `servers.py` and `workers.py`, and their restarts in `supervisor.py`.
"""

import os
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from mercuria.embedded.directory import PORTS_FILE, DataDirectory
from mercuria.embedded.environment import Environment
from mercuria.embedded.errors import StackError
from mercuria.embedded.files import disk_errors_as_sentences
from mercuria.embedded.jars import OnBytes
from mercuria.embedded.kafka import Kafka
from mercuria.embedded.orphans import stop_orphans
from mercuria.embedded.part import Part
from mercuria.embedded.ports import Ports, hold
from mercuria.embedded.postgres import Postgres
from mercuria.embedded.reaper import Reaper
from mercuria.embedded.redis import Redis
from mercuria.embedded.servers import Servers
from mercuria.embedded.signals import signals_ignored
from mercuria.embedded.supervisor import Supervisor
from mercuria.embedded.worker import Worker
from mercuria.embedded.workers import Workers

WORKER_COMMAND = (sys.executable, "-m", "mercuria", "worker")

P = TypeVar("P", bound=Part)


class Stack:
    """One installation's servers and workers.

    Args:
        data_dir: the directory for all data.
        workers: how many workers to start.
        http_port: the port that the workers share; by default that of the last start, or 6066, or any free
            one.
        partitions: for a new installation; an existing one keeps its number.
        supervise: whether a part that dies is restarted; `supervised` of each part can be changed later.
        prepare: is called with the environment and `env` once the servers are up, before the workers start.
        worker_command: the command line of a worker.
        throwaway: whether the parts end with this process even if it is killed, without `mercuria down`.
        on_progress: is called with each progress message, a sentence.
        on_download: is called during the download of Kafka's jars: bytes so far, bytes in all.
        environ: the environment; by default, that of the process.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        workers: int = 0,
        http_port: int | None = None,
        partitions: int | None = None,
        supervise: bool = True,
        prepare: Callable[[Mapping[str, str]], None] | None = None,
        worker_command: Sequence[str] = WORKER_COMMAND,
        throwaway: bool = False,
        on_progress: Callable[[str], None] = lambda _: None,
        on_download: OnBytes = lambda _done, _total: None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.directory = DataDirectory(data_dir)
        self.supervise = supervise
        self.env: dict[str, str] = {}
        """The MERCURIA_* variables with which a worker or a client finds this stack."""
        self._environment = Environment(os.environ if environ is None else environ, self.directory)
        self._supervisor = Supervisor(self.directory.path, on_progress)
        self._servers: Servers | None = None
        self._workers = Workers(self.directory, self._supervisor, worker_command, on_progress)
        self._worker_count = workers
        self._http_port = http_port
        self._partitions = partitions
        self._prepare = prepare
        self._report = on_progress
        self._on_download = on_download
        self._is_throwaway = throwaway
        self._reaper: Reaper | None = None
        self._held_port: socket.socket | None = None

    @property
    def kafka(self) -> Kafka:
        """The Kafka that this stack started."""
        return _own(self._servers.kafka if self._servers else None, "Kafka")

    @property
    def postgres(self) -> Postgres:
        """The PostgreSQL that this stack started."""
        return _own(self._servers.postgres if self._servers else None, "PostgreSQL")

    @property
    def redis(self) -> Redis:
        """The Redis that this stack started."""
        return _own(self._servers.redis if self._servers else None, "Redis")

    @property
    def servers(self) -> list[Part]:
        """The servers that this stack started."""
        return [] if self._servers is None else self._servers.own

    @property
    def workers(self) -> list[Worker]:
        """The workers that this stack started."""
        return self._workers.own

    @property
    def parts(self) -> list[Part]:
        """All parts that this stack started."""
        return [*self.servers, *self.workers]

    @property
    def failure(self) -> StackError | None:
        """The reason why the stack gave up on a part that died repeatedly; else None."""
        return self._supervisor.failure

    @property
    def url(self) -> str:
        """The URL of the HTTP API."""
        return self.env["MERCURIA_URL"]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start all parts, and return when all are ready.

        Raises:
            StackError: a part does not start; the parts that had started are stopped again.
        """
        self.directory.open()
        try:
            with disk_errors_as_sentences(self.directory.path):
                if self._is_throwaway:
                    self._reaper = Reaper(self.directory.path)
                self._start()
        except BaseException:
            self.stop()
            raise

    def add_worker(self, *, supervise: bool | None = None) -> Worker:
        """Start one more worker, and return it when it is ready."""
        worker = self._launch_worker(self.supervise if supervise is None else supervise)
        self._workers.wait_ready([worker])
        return worker

    def interrupt(self) -> None:
        """Make `start` or `wait` return; safe in a signal handler."""
        self._supervisor.interrupted.set()

    def wait(self) -> None:
        """Wait until `interrupt`.

        Raises:
            StackError: a part dies repeatedly.
        """
        self._supervisor.wait()

    def stop(self) -> None:
        """Stop all parts: the workers first, then the servers that they need. The stack can be started again.

        Signals are ignored meanwhile: pressing Ctrl-C twice leaves no process running.
        """
        with signals_ignored():
            self._stop()

    def _start(self) -> None:
        self._environment.require_valid()
        stop_orphans(self.directory, self._report)
        ports = Ports(self.directory.path / PORTS_FILE)
        http_port = self._environment.choose_http_port(ports, self._http_port)
        if not self._worker_count:
            # Workers of `mercuria join` may start late, or end and start again.
            self._held_port = hold(http_port, self._environment.host)
        self._start_servers(ports, http_port)
        self.directory.write_stack_env(self.env)
        if self._prepare is not None:
            self._prepare(self._environment.variables | self.env)
        self._start_workers(http_port)
        self.directory.mark_ready()

    def _start_servers(self, ports: Ports, http_port: int) -> None:
        servers = Servers(
            self.directory, self._environment, ports, self._supervisor, self._report, self._on_download
        )
        self._servers = servers
        partitions = self._environment.choose_partitions(self._partitions)
        self.env = self._environment.of_clients(servers.addresses(), http_port, partitions)
        if not self._environment.variables.get("MERCURIA_LEG_KEY_FILE"):
            self.directory.ensure_leg_key()
        servers.start(supervised=self.supervise)

    def _start_workers(self, http_port: int) -> None:
        # A single worker listens on the shared port alone.
        port = http_port if self._worker_count == 1 else None
        launched = [self._launch_worker(self.supervise, port) for _ in range(self._worker_count)]
        self._workers.wait_ready(launched)

    def _launch_worker(self, supervised: bool, port: int | None = None) -> Worker:
        has_own_database = self._servers is not None and self._servers.postgres is not None
        environ = self._environment.of_workers(self.env, has_own_database=has_own_database)
        return self._workers.launch(environ, supervised=supervised, port=port)

    def _stop(self) -> None:
        self._supervisor.stop()
        # The last callback runs first, and each one runs even if one before it failed.
        with ExitStack() as steps:
            if self._reaper is not None:
                steps.callback(self._reaper.dismiss)
            steps.callback(self.directory.close)
            if self._held_port is not None:
                steps.callback(self._held_port.close)
            if self._servers is not None:
                steps.callback(self._servers.stop)
            steps.callback(self._workers.stop_joined)
            steps.callback(self._workers.stop)
        self._workers.own, self._reaper, self._held_port = [], None, None
        self._supervisor.reset()


def _own(part: P | None, title: str) -> P:
    if part is None:
        raise StackError(f"{title} is not part of this stack: it was not started, or is elsewhere.")
    return part
