"""The workload: reads and writes at a steady rate, and beside them health checks and logins."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any
from uuid import uuid4

from tests.harness.audit.violations import Violations
from tests.harness.chaos.http.oracle import Oracle
from tests.harness.chaos.http.reads import Reader
from tests.harness.chaos.http.recorder import RecordingClient
from tests.harness.chaos.http.requests import RequestGenerator
from tests.harness.chaos.http.writes import Writer

WALLETS = 24
WRITES = 0.55
"""The share of requests that change something."""
MAX_WRITES_IN_FLIGHT = 250
MAX_READS_IN_FLIGHT = 150
MADE_UP_S = 0.1
"""How much of a pause is made up for."""
READY_EVERY_S = 0.5
LOGIN_EVERY_S = 1.0
RECOVERED_WITHIN_S = 60.0
"""How long after the outage accepted requests are polled."""
SETTLED_WITHIN_S = 60.0


class Workload:
    """The clients of a stack.

    Args:
        rate_per_s: how many requests to send a second, while not too many are unanswered.
    """

    def __init__(
        self,
        client: RecordingClient,
        generator: RequestGenerator,
        random: Random,
        oracle: Oracle,
        violations: Violations,
        *,
        rate_per_s: float,
    ) -> None:
        self._client = client
        self._generator = generator
        self._random = random
        self._violations = violations
        self._rate_per_s = rate_per_s
        self._reader = Reader(client, generator, random, oracle, violations)
        self._writer = Writer(client, generator, random, oracle, violations, self._reader, self._gives_up)
        self._is_over = False
        self._in_flight: defaultdict[str, set[asyncio.Task[None]]] = defaultdict(set)

    async def open_wallets(self) -> None:
        """Open and fund the first wallets."""
        await asyncio.gather(*(self._writer.open_and_fund() for _ in range(WALLETS)))

    async def run(self) -> None:
        """Send requests until `stop`."""
        async with asyncio.TaskGroup() as group:
            for each in (self._send_steadily, self._check_health, self._log_in):
                group.create_task(each())

    def stop(self) -> None:
        """Send no more new requests."""
        self._is_over = True

    async def settle(self) -> None:
        """Wait until every request in flight has an outcome."""
        in_flight = [task for tasks in self._in_flight.values() for task in tasks]
        if not in_flight:
            return
        _, late = await asyncio.wait(in_flight, timeout=SETTLED_WITHIN_S)
        for task in late:
            task.cancel()
        if late:
            accepted = [each.key for each in self._generator.requests if each.accepted and not each.final]
            self._violations.add(
                f"{len(late)} requests have no outcome after {SETTLED_WITHIN_S:.0f} s;"
                f" of those that were accepted: {accepted}."
            )

    async def _send_steadily(self) -> None:
        next_s = time.monotonic()
        while not self._is_over:
            if self._random.random() < WRITES:
                self._begin("writes", MAX_WRITES_IN_FLIGHT, self._writer.write)
            else:
                self._begin("reads", MAX_READS_IN_FLIGHT, self._reader.read)
            next_s = max(next_s + 1 / self._rate_per_s, time.monotonic() - MADE_UP_S)
            await asyncio.sleep(next_s - time.monotonic())

    def _begin(self, kind: str, limit: int, send: Callable[[], Coroutine[Any, Any, None]]) -> None:
        tasks = self._in_flight[kind]
        if len(tasks) < limit:
            task = asyncio.create_task(send())
            tasks.add(task)
            task.add_done_callback(self._finish)

    def _finish(self, task: asyncio.Task[None]) -> None:
        for tasks in self._in_flight.values():
            tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._violations.add(f"A client has a bug: {error!r}.")

    async def _check_health(self) -> None:
        while not self._is_over:
            await asyncio.gather(*map(self._check_ready, self._client.ports))
            await asyncio.sleep(READY_EVERY_S)

    async def _check_ready(self, port: int) -> None:
        answer = await self._client.request("ready", port, "GET", "/health/ready")
        if answer.status in (200, 503):
            self._client.recorder.record_unready(answer.body["reasons"])

    async def _log_in(self) -> None:
        """Try to log in again and again, with an address that is not registered."""
        while not self._is_over:
            body = {"email": f"{uuid4().hex}@example.com", "password": "correct horse battery staple"}
            await self._client.request("login", self._client.any_port(), "POST", "/api/v1/login", body=body)
            await asyncio.sleep(LOGIN_EVERY_S)

    def _gives_up(self) -> bool:
        ended_s = self._client.recorder.outage_ended_s
        return self._is_over and time.monotonic() > ended_s + RECOVERED_WITHIN_S + SETTLED_WITHIN_S
