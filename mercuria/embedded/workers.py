"""The workers of a stack: those that it starts itself, and those that `mercuria join` adds."""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from mercuria.embedded import processes
from mercuria.embedded.concurrency import run_concurrently
from mercuria.embedded.directory import PORTS_FILE, DataDirectory
from mercuria.embedded.errors import StackError, StackStopped
from mercuria.embedded.part import POLL_S
from mercuria.embedded.ports import Ports
from mercuria.embedded.supervisor import Supervisor
from mercuria.embedded.worker import Worker


class Workers:
    """The workers that one stack starts.

    Args:
        command: the command line of a worker.
        report: is called with each progress message, a sentence.
    """

    def __init__(
        self,
        directory: DataDirectory,
        supervisor: Supervisor,
        command: Sequence[str],
        report: Callable[[str], None],
    ) -> None:
        self.own: list[Worker] = []
        """The workers that the stack has started, in the order of their numbers."""
        self._directory = directory
        self._supervisor = supervisor
        self._command = command
        self._report = report

    def launch(self, environ: Mapping[str, str], *, supervised: bool, port: int | None = None) -> Worker:
        """Start one more worker without waiting, at `port` or a port of its own."""
        name = f"worker-{len(self.own) + 1}"
        worker = Worker(
            name,
            self._directory,
            self._choose_port(name, port),
            self._supervisor.interrupted,
            self._command,
            environ,
        )
        self.own.append(worker)
        self._report(f"{worker.title} is starting.")
        worker.launch()
        self._supervisor.watch(worker, supervised=supervised)
        return worker

    def wait_ready(self, workers: Sequence[Worker]) -> None:
        """Wait until all of `workers` are ready, while supervised ones that die are restarted.

        Raises:
            StackError: a worker that is not supervised ended, or one does not get ready in time.
        """
        deadline = time.monotonic() + Worker.start_timeout_s
        for worker in workers:
            while not worker.is_ready():
                self._require_hope(worker, deadline)
                time.sleep(POLL_S)
            self._report(f"{worker.title} is ready.")

    def stop(self) -> None:
        """Stop the stack's own workers concurrently."""
        run_concurrently(worker.stop for worker in self.own)

    def stop_joined(self) -> None:
        """Stop the workers that `mercuria join` has started: they need the servers for a clean end."""
        own = {worker.pid for worker in self.own}
        joined = [
            process
            for name, process in processes.marked(self._directory.path)
            if name.startswith("worker-") and process.pid not in own
        ]
        run_concurrently(partial(processes.stop, process) for process in joined)

    def _choose_port(self, name: str, port: int | None) -> int:
        ports = Ports(self._directory.path / PORTS_FILE)
        if port is None:
            return ports.choose(name)
        ports.forget(name)
        return port

    def _require_hope(self, worker: Worker, deadline: float) -> None:
        """Raise if a worker that is not ready yet will not become so."""
        if self._supervisor.interrupted.is_set():
            raise self._supervisor.failure or StackStopped
        if not worker.is_alive() and not worker.supervised:
            raise StackError(worker.with_log(f"{worker.title} ended ({worker.ending()})"))
        if time.monotonic() > deadline:
            reasons = "; ".join(worker.unready_reasons())
            raise StackError(worker.with_log(f"{worker.title} does not get ready: {reasons}"))
