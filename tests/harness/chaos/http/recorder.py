"""The recorder: counts answers by phase and by what was requested, and checks each answer by itself.

Whether a balance in an answer is true is the oracle's subject.
"""

import time
from collections import defaultdict
from collections.abc import Sequence
from random import Random
from typing import Any, Literal

from msgspec import Struct

from tests.harness.audit.violations import Violations
from tests.harness.chaos.http.client import LOST, Answer, Client
from tests.harness.chaos.http.users import User

Phase = Literal["before", "during", "after"]
PHASES: tuple[Phase, ...] = ("before", "during", "after")


class AnswerCounts(Struct):
    """The answers to requests of one kind in one phase: how often which came, and how long the slowest took."""

    answers: dict[str, int] = {}
    slowest_s: float = 0.0

    def add(self, answer: Answer) -> None:
        """Count an answer."""
        self.answers[answer.name] = self.answers.get(answer.name, 0) + 1
        self.slowest_s = max(self.slowest_s, answer.duration_s)

    def count(self, *names: str) -> int:
        """Return how many answers had one of these names."""
        return sum(self.answers.get(name, 0) for name in names)

    @property
    def all(self) -> int:
        """How many answers there were."""
        return sum(self.answers.values())


class Recorder:
    """Records the answers of a run, and when the outage was.

    Args:
        violations: where what is wrong is noted.
        is_tolerant: whether requests may be refused (503) or lost at any time; that is counted in `refused`, and no
            violation.
    """

    def __init__(self, violations: Violations, *, is_tolerant: bool) -> None:
        self.violations = violations
        self.is_tolerant = is_tolerant
        self.accepts_loss = is_tolerant
        """Whether answers may be missing."""
        self.phase: Phase = "before"
        self.outage_began_s = self.outage_ended_s = 0.0
        self.last_refused_s = 0.0
        self.answered = 0
        """How many requests were answered, or lost."""
        self.refused = 0
        """How many of them were refused or lost."""
        self.unready: set[str] = set()
        """Why workers were not ready during the outage."""
        self.oldest_s: defaultdict[str, float] = defaultdict(float)
        """By phase, the age of the oldest balance that was read."""
        self._counts: defaultdict[str, defaultdict[str, AnswerCounts]] = defaultdict(
            lambda: defaultdict(AnswerCounts)
        )

    def begin_outage(self) -> None:
        """Count from now on as during the outage."""
        self.phase, self.outage_began_s = "during", self.outage_began_s or time.monotonic()

    def end_outage(self) -> None:
        """Count from now on as after the outage."""
        self.phase, self.outage_ended_s = "after", time.monotonic()

    def counts(self) -> dict[str, dict[str, AnswerCounts]]:
        """Return the counts by phase and kind."""
        return {phase: dict(self._counts[phase]) for phase in PHASES}

    def record(self, kind: str, phase: Phase, answer: Answer) -> None:
        """Record the answer to a request of a kind that was sent in a phase."""
        self._counts[phase][kind].add(answer)
        self._check(kind, answer)
        self.answered += 1

    def record_age(self, age_s: float) -> None:
        """Record how old a balance was when its read began."""
        self.oldest_s[self.phase] = max(self.oldest_s[self.phase], age_s)

    def record_unready(self, reasons: Sequence[str]) -> None:
        """Record why a worker is not ready."""
        if self.phase == "during":
            self.unready.update(reasons)

    def _check(self, kind: str, answer: Answer) -> None:
        is_refused = answer.status in (LOST, 503)
        if answer.status >= 500 and not is_refused:
            self.violations.add(f"A request for {kind} was answered with {answer.name}: {answer.body}.")
        if answer.status == LOST and not self.accepts_loss:
            self.violations.add(f"A request for {kind} was not answered: {answer.body}.")
        if is_refused and self.phase == "before" and not self.is_tolerant:
            self.violations.add(f"A request for {kind} was answered with {answer.name} before the outage.")
        if is_refused:
            self.last_refused_s = max(self.last_refused_s, answer.ended_s)
            self.refused += kind != "ready"


class RecordingClient:
    """Sends requests to the workers of a stack, and records each answer."""

    def __init__(self, client: Client, ports: Sequence[int], random: Random, recorder: Recorder) -> None:
        self.ports = ports
        self.recorder = recorder
        self._client = client
        self._random = random

    async def request(
        self, kind: str, port: int, method: str, path: str, *, user: User | None = None, **more: Any
    ) -> Answer:
        """Send a request to the worker on a port; `kind` is what it is counted as."""
        phase = self.recorder.phase
        token = user.token if user else None
        answer = await self._client.request(port, method, path, token=token, **more)
        self.recorder.record(kind, phase, answer)
        return answer

    def any_port(self) -> int:
        """Choose a worker's port."""
        return self._random.choice(self.ports)

    def other_port(self, port: int) -> int:
        """Choose the port of another worker, if there is one."""
        return self._random.choice([each for each in self.ports if each != port] or self.ports)
