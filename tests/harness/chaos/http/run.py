"""A chaos run over HTTP: a workload on a stack, faults meanwhile, and then the check of all answers.

    outcome = await HttpRun(stack, seed=1).run(stop(stack.redis, 60))
    assert outcome.is_clean

The oracle compares answers with the event log, the log itself is audited, and the wallets in PostgreSQL, Redis and the
workers' answers are compared with it. Faults are functions of the run; they are in `faults`, and tests add their own.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from random import Random

from mercuria.embedded.stack import Stack
from tests.harness.audit.stack import audit_stack
from tests.harness.audit.violations import Violations
from tests.harness.chaos.http.client import Client, open_client, wait_until_routed
from tests.harness.chaos.http.event_log import read_event_log
from tests.harness.chaos.http.final_state import FinalState, wait_until_caught_up
from tests.harness.chaos.http.oracle import Oracle
from tests.harness.chaos.http.recorder import Recorder, RecordingClient
from tests.harness.chaos.http.report import Outcome
from tests.harness.chaos.http.requests import RequestGenerator
from tests.harness.chaos.http.users import issue_operator, issue_users
from tests.harness.chaos.http.workload import WALLETS, Workload
from tests.harness.console import Echo

POLL_S = 0.1
IMPATIENT_TIMEOUT_S = 6.0
"""How long clients wait for a worker that may be broken: a little longer than it waits for a wallet."""
SERVERS_RECOVER_WITHIN_S = 8.0
"""How soon after a server is back every request has to be answered again."""
WORKERS_RECOVER_WITHIN_S = 60.0
"""A worker that is back takes partitions, and reads their tables first. Often both workers end and start again: the
frozen one, and the one that finds its late rows. Then this takes 33 to 38 s on a quiet machine with two cores."""


class HttpRun:
    """A workload, faults and checks on a stack of two workers or more.

    Args:
        rate_per_s: how many requests are sent a second, while not too many are unanswered.
        calm_s: how long the load lasts before the faults, and after all answers are as they should be again.
        echo: prints what happens.
        violations: where what is wrong is noted.
        is_tolerant: whether requests may be refused (503) or lost at any time, as on a machine that is too busy;
            clients retry them, and they are counted, and no violation.
    """

    def __init__(
        self,
        stack: Stack,
        *,
        seed: int,
        rate_per_s: float = 200,
        calm_s: float = 5.0,
        echo: Echo = lambda _: None,
        violations: Violations | None = None,
        is_tolerant: bool = False,
    ) -> None:
        self.stack = stack
        self.random = Random(f"http {seed}")
        self.echo = echo
        self.violations = violations or Violations()
        self.recorder = Recorder(self.violations, is_tolerant=is_tolerant)
        self._seed = seed
        self._rate_per_s = rate_per_s
        self._calm_s = calm_s
        self._recovers_within_s = SERVERS_RECOVER_WITHIN_S
        self._ports = [worker.port for worker in stack.workers]
        self._users = issue_users(stack, self.random)
        self._operator = issue_operator(stack)
        self._generator = RequestGenerator(self.random, self._users, f"http-{seed}")
        self._oracle = Oracle(self.violations)
        self._client: Client

    async def run(self, faults: "Faults") -> Outcome:
        """Apply the load while the faults happen, wait for all answers, and check everything."""
        await self.apply_load(faults)
        return await self.check()

    async def apply_load(self, faults: "Faults") -> None:
        """Open wallets, use them while the faults happen, and wait for all answers."""
        async with open_client() as self._client:
            if self.recorder.is_tolerant:
                self._client.timeout_s = IMPATIENT_TIMEOUT_S
            await wait_until_routed(self._client, self.stack, self._users[0].token)
            workload = self._workload(self._client)
            await workload.open_wallets()
            self.echo(f"{WALLETS} wallets are open.")
            async with asyncio.TaskGroup() as group:
                group.create_task(workload.run())
                await asyncio.sleep(self._calm_s)
                await faults(self)
                await self.wait_until_calm(self._calm_s)
                workload.stop()
            await workload.settle()

    async def check(self) -> Outcome:
        """Check all answers and the whole stack, when no more happens to it."""
        requests, recorder = self._generator.requests, self.recorder
        self.echo(f"{len(requests)} requests for changes are answered; all answers are checked.")
        caught_up_s = await wait_until_caught_up(self.stack, self.violations)
        log = await read_event_log(self.stack)
        self._oracle.check(requests, log)
        await FinalState(self.stack, log, self.violations).check(requests, self._generator.accounts)
        audit = await audit_stack(self.stack)
        return Outcome(
            seed=self._seed,
            orders=len(requests),
            asked=recorder.counts(),
            outage_s=recorder.outage_ended_s - recorder.outage_began_s,
            recovered_after_s=max(0.0, recorder.last_refused_s - recorder.outage_ended_s),
            caught_up_after_s=caught_up_s - recorder.outage_ended_s,
            oldest_shown_s=dict(recorder.oldest_s),
            unready=sorted(recorder.unready),
            audit=audit,
            violations=self.violations.sentences + audit.violations,
            violation_count=self.violations.count + audit.violation_count,
        )

    # What faults use.

    @asynccontextmanager
    async def outage(self, message: str) -> AsyncIterator[None]:
        """Count the block as an outage, in which requests may be refused."""
        self.echo(message)
        self.recorder.begin_outage()
        try:
            yield
        finally:
            self.recorder.end_outage()

    def accept_loss(self) -> None:
        """Let workers be broken: clients time out soon, and turn to another worker."""
        self.recorder.accepts_loss = True
        self._client.timeout_s = IMPATIENT_TIMEOUT_S
        self._recovers_within_s = WORKERS_RECOVER_WITHIN_S

    async def wait_until_calm(self, for_s: float) -> None:
        """Wait until no request was refused for a while."""
        recorder = self.recorder
        deadline_s = recorder.outage_ended_s + self._recovers_within_s + for_s
        while time.monotonic() < max(recorder.outage_ended_s, recorder.last_refused_s) + for_s:
            if time.monotonic() > deadline_s:
                if not recorder.is_tolerant:
                    self.violations.add(
                        f"{self._recovers_within_s:.0f} s after the outage, requests were still refused."
                    )
                return
            await asyncio.sleep(POLL_S)

    async def consumer_lag(self) -> dict[str, int]:
        """Return the consumer lag of each projection, in records; nothing where no worker answers it."""
        async with open_client() as client:
            client.timeout_s = IMPATIENT_TIMEOUT_S
            for port in self._ports:
                answer = await client.request(
                    port, "GET", "/api/v1/operations/lag", token=self._operator.token
                )
                if answer.status == 200:
                    return {stage["stage"]: stage["lag"] for stage in answer.body["stages"]}
        return {}

    def _workload(self, client: Client) -> Workload:
        recording = RecordingClient(client, self._ports, self.random, self.recorder)
        return Workload(
            recording,
            self._generator,
            self.random,
            self._oracle,
            self.violations,
            rate_per_s=self._rate_per_s,
        )


Faults = Callable[[HttpRun], Awaitable[None]]
"""Injects faults into the stack of a run while it is under load."""
