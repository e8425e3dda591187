"""Concurrent duplicates: each request several times at once over all workers, one of which is killed half-way.

    outcome = await DuplicatesRun(stack, seed=1, keys=2500, copies=4).run()
    assert outcome.is_clean

A client without an answer turns to another worker, with the same key. In the end all copies have one answer, and one
effect.
"""

import asyncio
import time
from collections import Counter
from random import Random

from msgspec import Struct

from mercuria.embedded.stack import Stack
from tests.harness.audit.auditor import Audit
from tests.harness.audit.stack import audit_stack
from tests.harness.audit.violations import Violations
from tests.harness.chaos.http.client import LOST, Answer, Client, open_client, wait_until_routed
from tests.harness.chaos.http.event_log import read_event_log
from tests.harness.chaos.http.oracle import Oracle
from tests.harness.chaos.http.report import audit_figures, format_counts
from tests.harness.chaos.http.requests import Request, RequestGenerator
from tests.harness.chaos.http.users import issue_users
from tests.harness.console import Echo

WALLETS = 40
MAX_KEYS_IN_FLIGHT = 50
ANSWERED_WITHIN_S = 120.0
OPENINGS = 0.05
"""The share of requests that open a wallet."""


class DuplicatesOutcome(Struct):
    """The figures of a run. `requests` are those with a final answer, `answers` all answers by name."""

    seed: int
    keys: int
    requests: int
    answers: dict[str, int]
    replayed: int
    effects: int
    slowest_s: float
    took_s: float
    audit: Audit
    violations: list[str]
    violation_count: int

    @property
    def is_clean(self) -> bool:
        """Whether nothing is wrong."""
        return self.violation_count == 0


class DuplicatesRun:
    """Requests that are each sent several times.

    Args:
        keys: how many different ones.
        copies: how often each is sent.
        echo: prints what happens.
    """

    def __init__(
        self, stack: Stack, *, seed: int, keys: int = 2500, copies: int = 4, echo: Echo = lambda _: None
    ) -> None:
        self._stack = stack
        self._seed = seed
        self._keys = keys
        self._copies = copies
        self._echo = echo
        self._random = Random(f"duplicates {seed}")
        self._violations = Violations()
        self._ports = [worker.port for worker in stack.workers]
        self._users = issue_users(stack, self._random)
        self._generator = RequestGenerator(self._random, self._users, f"duplicates-{seed}")
        self._answers: Counter[str] = Counter()
        self._slowest_s = 0.0
        self._done = 0
        self._client: Client

    async def run(self) -> DuplicatesOutcome:
        """Open wallets, send everything, kill a worker half-way, and check the answers against the log."""
        async with open_client() as self._client:
            await wait_until_routed(self._client, self._stack, self._users[0].token)
            await asyncio.gather(*(self._open_and_fund() for _ in range(WALLETS)))
            opened, began_s = len(self._generator.requests), time.monotonic()
            killing = asyncio.create_task(self._kill_half_way())
            places = asyncio.Semaphore(MAX_KEYS_IN_FLIGHT)
            await asyncio.gather(*(self._send_all_copies(places) for _ in range(self._keys)))
            await killing
            took_s = time.monotonic() - began_s
        return await self._check(self._generator.requests[opened:], took_s)

    async def _check(self, requests: list[Request], took_s: float) -> DuplicatesOutcome:
        self._echo(f"{self._keys * self._copies} requests are answered; all answers are checked.")
        log = await read_event_log(self._stack)
        Oracle(self._violations).check(requests, log)
        audit = await audit_stack(self._stack)
        finals = [answer for request in requests for answer in request.answers if answer.is_final]
        return DuplicatesOutcome(
            seed=self._seed,
            keys=len(requests),
            requests=len(finals),
            answers=dict(self._answers),
            replayed=sum(each.is_replayed for each in finals),
            effects=sum(len(log.effects(request)) for request in requests),
            slowest_s=self._slowest_s,
            took_s=took_s,
            audit=audit,
            violations=self._violations.sentences + audit.violations,
            violation_count=self._violations.count + audit.violation_count,
        )

    async def _open_and_fund(self) -> None:
        request = self._generator.opening()
        answer = await self._send_copy(request, 0)
        assert answer is not None and answer.status == 201, f"a wallet is not opened: {answer}"
        await self._send_copy(self._generator.funding(self._generator.opened(request, answer.body)), 0)

    async def _send_all_copies(self, places: asyncio.Semaphore) -> None:
        """Send one request in all its copies at the same moment."""
        async with places:
            is_opening = self._random.random() < OPENINGS
            request = self._generator.opening() if is_opening else self._generator.movement()
            await asyncio.gather(*(self._send_copy(request, number) for number in range(self._copies)))
            self._done += 1

    async def _send_copy(self, request: Request, number: int) -> Answer | None:
        """Send a request to one worker after the other until it has a final answer."""
        deadline_s = time.monotonic() + ANSWERED_WITHIN_S
        while time.monotonic() < deadline_s:
            answer = await self._send(request, self._ports[number % len(self._ports)])
            if answer.is_final:
                return answer
            if answer.status not in (LOST, 202, 503):
                break
            await asyncio.sleep(0 if answer.status == 202 else answer.retry_after_s)
            number += 1
        self._violations.add(f"A copy of request {request.number} has no answer: {request.answers[-1]}.")
        return None

    async def _send(self, request: Request, port: int) -> Answer:
        answer = await self._client.request(
            port, "POST", request.path, token=request.user.token, body=request.body, key=request.key
        )
        request.answers.append(answer)
        self._answers[answer.name] += 1
        self._slowest_s = max(self._slowest_s, answer.duration_s)
        return answer

    async def _kill_half_way(self) -> None:
        while self._done < self._keys // 2:  # noqa: ASYNC110  nothing happens at once with it
            await asyncio.sleep(0.005)
        worker = self._random.choice(self._stack.workers)
        self._echo(f"{worker.title} is killed, after {self._done} of {self._keys} keys are answered.")
        await asyncio.to_thread(worker.kill)


def duplicates_figures(outcome: DuplicatesOutcome) -> dict[str, object]:
    """Return the figures by their labels."""
    return {
        **audit_figures(outcome.audit),
        "keys": outcome.keys,
        "effects": outcome.effects,
        "answers": format_counts(outcome.answers),
        "marked as replayed": outcome.replayed,
        "the slowest answer": f"{outcome.slowest_s:.1f} s",
        "took": f"{outcome.took_s:.1f} s",
        "violations": outcome.violation_count,
    }
