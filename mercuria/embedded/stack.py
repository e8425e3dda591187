"""The embedded stack: starts, monitors and stops Kafka, PostgreSQL, Redis and the workers.

    with Stack(Path("data"), workers=1) as stack:
        ...  # stack.env tells a client where everything is

Both `mercuria up` and the tests start it like this. A part for which the environment names an external
address (`MERCURIA_KAFKA`, `MERCURIA_DATABASE`, `MERCURIA_REDIS`) is used there, and not started.
"""

import os
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from mercuria.config import Settings, in_url, read_stack_env
from mercuria.embedded import processes
from mercuria.embedded.directory import PORTS_FILE, DataDirectory
from mercuria.embedded.errors import StackError, StackStopped
from mercuria.embedded.files import disk_errors_as_sentences, require_space
from mercuria.embedded.jars import OnBytes
from mercuria.embedded.kafka import Kafka
from mercuria.embedded.orphans import stop_orphans
from mercuria.embedded.part import POLL_S, Part
from mercuria.embedded.ports import LOOPBACK, Ports, hold, holder, is_free
from mercuria.embedded.postgres import Postgres
from mercuria.embedded.reaper import Reaper
from mercuria.embedded.redis import Redis
from mercuria.embedded.signals import signals_ignored
from mercuria.embedded.together import all_at_once
from mercuria.embedded.worker import Worker, reachable_host

DEFAULT_HTTP_PORT = 6066
DEFAULT_PARTITIONS = 8
WORKER_COMMAND = (sys.executable, "-m", "mercuria", "worker")

WATCH_S = 0.2
CRASHES_ALLOWED = 5
CRASHES_WINDOW_S = 60.0
LONGEST_BACKOFF_S = 5.0

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
        self.workers: list[Worker] = []
        self.env: dict[str, str] = {}
        """The MERCURIA_* variables with which a worker or a client finds this stack."""
        self._worker_count = workers
        self._http_port = http_port
        self._partitions = partitions
        self._prepare = prepare
        self._worker_command = worker_command
        self._tell = on_progress
        self._on_download = on_download
        self._environ = dict(os.environ if environ is None else environ)
        self._kafka: Kafka | None = None
        self._postgres: Postgres | None = None
        self._redis: Redis | None = None
        self._interrupted = threading.Event()
        self._failure: StackError | None = None
        self._watchers: list[threading.Thread] = []
        self._held: socket.socket | None = None
        self._is_throwaway = throwaway
        self._reaper: Reaper | None = None

    @property
    def kafka(self) -> Kafka:
        """The Kafka that this stack started."""
        return _here(self._kafka, "Kafka")

    @property
    def postgres(self) -> Postgres:
        """The PostgreSQL that this stack started."""
        return _here(self._postgres, "PostgreSQL")

    @property
    def redis(self) -> Redis:
        """The Redis that this stack started."""
        return _here(self._redis, "Redis")

    @property
    def servers(self) -> list[Part]:
        """The servers that this stack started."""
        return [server for server in (self._kafka, self._postgres, self._redis) if server is not None]

    @property
    def parts(self) -> list[Part]:
        """All parts that this stack started."""
        return [*self.servers, *self.workers]

    @property
    def failure(self) -> StackError | None:
        """The reason why the stack gave up on a part that died repeatedly; else None."""
        return self._failure

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

    def interrupt(self) -> None:
        """Make `start` or `wait` return; safe in a signal handler."""
        self._interrupted.set()

    def wait(self) -> None:
        """Wait until `interrupt`.

        Raises:
            StackError: a part dies repeatedly.
        """
        while not self._interrupted.wait(WATCH_S):
            pass
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Stop all parts: the workers first, then the servers that they need. The stack can be started again.

        Signals are ignored meanwhile: pressing Ctrl-C twice leaves no process running.
        """
        with signals_ignored():
            self._stop()

    def _stop(self) -> None:
        self._interrupted.set()
        for watcher in self._watchers:
            watcher.join()
        # The last callback runs first, and each one runs even if one before it failed.
        with ExitStack() as steps:
            if self._reaper is not None:
                steps.callback(self._reaper.dismiss)
            steps.callback(self.directory.close)
            if self._held is not None:
                steps.callback(self._held.close)
            steps.callback(all_at_once, [server.stop for server in self.servers])
            steps.callback(self._stop_joined)
            steps.callback(all_at_once, [worker.stop for worker in self.workers])
        self.workers, self._watchers, self._failure, self._held = [], [], None, None
        self._reaper = None
        self._interrupted.clear()

    def add_worker(self, *, supervise: bool | None = None) -> Worker:
        """Start one more worker, and return it when it is ready."""
        worker = self._begin_worker(self.supervise if supervise is None else supervise)
        self._await_workers([worker])
        return worker

    def _stop_joined(self) -> None:
        """Stop the workers that `mercuria join` has started: they need the servers for a clean end."""
        own = {worker.pid for worker in self.workers}
        joined = [
            process
            for name, process in processes.marked(self.directory.path)
            if name.startswith("worker-") and process.pid not in own
        ]
        all_at_once(partial(processes.stop, process) for process in joined)

    def _start(self) -> None:
        # An invalid value stops the start before any part runs.
        Settings.from_env(self._environ | {"MERCURIA_DATA_DIR": str(self.directory.path)})
        stop_orphans(self.directory, self._tell)
        ports = Ports(self.directory.path / PORTS_FILE)
        http_port = self._choose_http_port(ports)
        if not self._worker_count:
            # Workers of `mercuria join` may start late, or end and start again.
            self._held = hold(http_port, reachable_host(self._environ))
        self._make_servers(ports)
        self._settle_env(http_port)
        self._start_servers()
        self.directory.write_stack_env(self.env)
        if self._prepare is not None:
            self._prepare(self._environ | self.env)
        self._await_workers([self._begin_worker(self.supervise) for _ in range(self._worker_count)])
        self.directory.say_ready()

    def _choose_http_port(self, ports: Ports) -> int:
        wanted = self._http_port or int(self._environ.get("MERCURIA_HTTP_PORT") or 0)
        if not wanted:
            return ports.choose("http", DEFAULT_HTTP_PORT)
        if not is_free(wanted):
            by = holder(wanted)
            raise StackError(
                f"Port {wanted} is taken{f' by {by}' if by else ''}; choose another one with --http-port."
            )
        return ports.remember("http", wanted)

    def _make_servers(self, ports: Ports) -> None:
        """Choose ports for the servers that are not external."""
        here, stop = self.directory, self._interrupted
        if not self._is_elsewhere("MERCURIA_KAFKA", ports.get("kafka")):
            port, controller = ports.choose("kafka"), ports.choose("kafka-controller")
            self._kafka = Kafka(here, port, controller, stop, self._environ, self._on_download)
        if not self._is_elsewhere("MERCURIA_DATABASE", ports.get("postgres")):
            self._postgres = Postgres("postgres", here, ports.choose("postgres"), stop)
        if not self._is_elsewhere("MERCURIA_REDIS", ports.get("redis")):
            self._redis = Redis("redis", here, ports.choose("redis"), stop)

    def _is_elsewhere(self, name: str, own_port: int | None) -> bool:
        """Return whether the environment names an external server instead of this stack's own.

        A value that repeats the directory's stack.env, which the user may have sourced, does not count. The
        address there with this stack's own port is that of this stack's own server, and only this stack can
        start it.
        """
        told = self._environ.get(name)
        repeated = told == read_stack_env(self.directory.path).get(name)
        return bool(told) and not (repeated and own_port and f"{LOOPBACK}:{own_port}" in (told or ""))

    def _settle_env(self, http_port: int) -> None:
        """Set the addresses of all parts; the environment gives those of external servers."""
        if self._postgres is not None:
            database, owner = self._postgres.url, self._postgres.owner_url
        else:
            database = self._environ["MERCURIA_DATABASE"]
            owner = self._environ.get("MERCURIA_DATABASE_OWNER") or database
        self.env = {
            "MERCURIA_DATA_DIR": str(self.directory.path),
            "MERCURIA_URL": f"http://{in_url(reachable_host(self._environ))}:{http_port}",
            "MERCURIA_KAFKA": self._kafka.address if self._kafka else self._environ["MERCURIA_KAFKA"],
            "MERCURIA_DATABASE": database,
            "MERCURIA_DATABASE_OWNER": owner,
            "MERCURIA_REDIS": self._redis.url if self._redis else self._environ["MERCURIA_REDIS"],
            "MERCURIA_HTTP_PORT": str(http_port),
            "MERCURIA_PARTITIONS": str(self._settle_partitions()),
        }
        if not self._environ.get("MERCURIA_LEG_KEY_FILE"):
            self.directory.ensure_leg_key()

    def _settle_partitions(self) -> int:
        """Return the number of partitions, which never changes in an installation."""
        wanted = self._partitions or int(self._environ.get("MERCURIA_PARTITIONS") or 0)
        kept = int(read_stack_env(self.directory.path).get("MERCURIA_PARTITIONS") or 0)
        if wanted and kept and wanted != kept:
            raise StackError(
                f"MERCURIA_PARTITIONS={wanted} cannot be used: {self.directory.path} was made with {kept} partitions"
                f" and keeps them; {wanted} need a data directory of their own."
            )
        return kept or wanted or DEFAULT_PARTITIONS

    def _start_servers(self) -> None:
        try:
            all_at_once(
                (partial(self._start_server, server) for server in self.servers), self._interrupted.set
            )
        except StackStopped:
            # One server failed first, and the others stopped because of it.
            raise self._failure or StackStopped from None
        for server in self.servers:
            self._watch(server, self.supervise)

    def _start_server(self, server: Part) -> None:
        self._tell(f"{server.title} is starting.")
        try:
            with disk_errors_as_sentences(self.directory.path):
                server.start()
        except StackStopped:
            raise
        except StackError as error:
            self._fail(error)
            raise
        self._tell(f"{server.title} is ready at {server.address}.")

    def _begin_worker(self, supervise: bool) -> Worker:
        number = len(self.workers) + 1
        name = f"worker-{number}"
        ports = Ports(self.directory.path / PORTS_FILE)
        if number == 1 and self._worker_count == 1:
            ports.forget(name)
            port = int(self.env["MERCURIA_HTTP_PORT"])
        else:
            port = ports.choose(name)
        # People read these logs, both in files and in the message when a worker ends.
        environ = {"MERCURIA_LOG_FORMAT": "console"} | self._environ | self.env
        if self._postgres is not None:
            # libpq would take its password and other settings from there, which are meant for another server.
            environ = {name: value for name, value in environ.items() if not name.startswith("PG")}
        worker = Worker(name, self.directory, port, self._interrupted, self._worker_command, environ)
        self.workers.append(worker)
        self._tell(f"{worker.title} is starting.")
        worker.launch()
        self._watch(worker, supervise)
        return worker

    def _await_workers(self, workers: Sequence[Worker]) -> None:
        """Wait until all workers are ready; restart a supervised worker that dies meanwhile."""
        deadline = time.monotonic() + Worker.start_timeout_s
        for worker in workers:
            while not worker.is_ready():
                if self._interrupted.is_set():
                    raise self._failure or StackStopped
                if not worker.is_alive() and not worker.supervised:
                    raise StackError(worker.with_log(f"{worker.title} ended ({worker.ending()})"))
                if time.monotonic() > deadline:
                    reasons = "; ".join(worker.unready_reasons())
                    raise StackError(worker.with_log(f"{worker.title} does not get ready: {reasons}"))
                time.sleep(POLL_S)
            self._tell(f"{worker.title} is ready.")

    def _watch(self, part: Part, supervise: bool) -> None:
        part.supervised = supervise
        watcher = threading.Thread(target=self._watch_until_stopped, args=(part,), name=f"watch-{part.name}")
        watcher.daemon = True
        watcher.start()
        self._watchers.append(watcher)

    def _watch_until_stopped(self, part: Part) -> None:
        """Restart a part whenever it dies, until it dies too often."""
        crashes: deque[float] = deque()
        while not self._interrupted.wait(WATCH_S):
            # A full disk must not end the monitoring as well; the log is truncated when there is space again.
            with suppress(OSError):
                part.log.rotate()
            if part.is_alive() or not part.wanted or not part.supervised:
                continue
            self._tell(part.with_log(f"{part.title} ended ({part.ending()})"))
            if not _was_killed(part):
                crashes.append(time.monotonic())
            while crashes and crashes[0] < time.monotonic() - CRASHES_WINDOW_S:
                crashes.popleft()
            if len(crashes) > CRASHES_ALLOWED:
                self._fail(self._crash_loop(part, len(crashes)))
            elif not self._interrupted.wait(backoff_s(len(crashes))):
                self._start_again(part)

    def _start_again(self, part: Part) -> None:
        self._tell(f"{part.title} is starting again.")
        try:
            part.relaunch()
            part.wait_ready()
        except StackStopped:
            return
        except (StackError, OSError) as error:
            # When the part has ended, the watcher notices and reports it.
            if part.is_alive() or isinstance(error, OSError):
                self._tell(str(error))
            return
        self._tell(f"{part.title} is ready again.")

    def _crash_loop(self, part: Part, crashes: int) -> StackError:
        within = f"{part.title} ended {crashes} times within {CRASHES_WINDOW_S:.0f} seconds and was given up"
        try:
            require_space(self.directory.path)
        except StackError as full:
            return StackError(f"{within}. {full}")
        return StackError(part.with_log(within))

    def _fail(self, error: StackError) -> None:
        self._failure = self._failure or error
        self._interrupted.set()


def backoff_s(crashes: int) -> float:
    """Return how long to wait before a part is restarted: not at all at first, then progressively longer."""
    return 0.0 if crashes <= 1 else min(0.25 * 2**crashes, LONGEST_BACKOFF_S)


def _was_killed(part: Part) -> bool:
    """Return whether another process killed a working part: no program kills itself in this way."""
    return part.was_ready and part.exit_code == -signal.SIGKILL


def _here(part: P | None, title: str) -> P:
    if part is None:
        raise StackError(f"{title} is not part of this stack: it was not started, or is elsewhere.")
    return part
