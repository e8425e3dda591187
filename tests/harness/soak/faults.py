"""The faults of a soak, one part after the other, and how long the stack takes to recover from each."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from random import Random

from mercuria.embedded.stack import Stack
from tests.harness.audit.violations import Violations
from tests.harness.chaos.http.faults import freeze, kill
from tests.harness.chaos.http.run import HttpRun
from tests.harness.chaos.kafka.pending import PendingCommands
from tests.harness.console import Echo

RECOVERS_WITHIN_S = 180.0
"""How soon after a fault every request has to be answered again: the machine may be busy."""
POLL_S = 0.1

AWAY_S = (0.0, 5.0)
"""How long a part is away that was killed."""
FROZEN_S = (2.0, 15.0)
"""How long a worker is frozen: shorter and longer than the 10 s after which Kafka gives its partitions to others."""

Fault = Callable[[HttpRun, Random], Awaitable[None]]


async def kill_worker(run: HttpRun, random: Random) -> None:
    """Kill a worker."""
    await kill(run, random.choice(run.stack.workers), random.uniform(*AWAY_S))


async def freeze_worker(run: HttpRun, random: Random) -> None:
    """Freeze a worker for a while."""
    await freeze(run, random.choice(run.stack.workers), random.uniform(*FROZEN_S))


async def kill_postgres(run: HttpRun, random: Random) -> None:
    """Kill PostgreSQL."""
    await kill(run, run.stack.postgres, random.uniform(*AWAY_S))


async def kill_redis(run: HttpRun, random: Random) -> None:
    """Kill Redis, which comes back empty."""
    await kill(run, run.stack.redis, random.uniform(*AWAY_S), loses_data=True)


async def kill_kafka(run: HttpRun, random: Random) -> None:
    """Kill Kafka."""
    await kill(run, run.stack.kafka, random.uniform(*AWAY_S))


FAULTS: dict[str, Fault] = {
    "worker killed": kill_worker,
    "worker frozen": freeze_worker,
    "PostgreSQL killed": kill_postgres,
    "Redis killed and emptied": kill_redis,
    "Kafka killed": kill_kafka,
}


def in_turn(random: Random) -> Iterator[str]:
    """Yield names of faults without end: all of them in some order, and then again in another one."""
    while True:
        names = list(FAULTS)
        random.shuffle(names)
        yield from names


class FaultInjector:
    """Injects faults, and waits after each until the stack has recovered.

    Args:
        pending: the commands that have no event yet.
        errors: where it is noted that the stack does not recover.
        echo: prints what happens.
    """

    def __init__(
        self, stack: Stack, random: Random, pending: PendingCommands, errors: Violations, echo: Echo
    ) -> None:
        self.counts: Counter[str] = Counter()
        self.recovery_s: dict[str, float] = {}
        """By fault, the longest time until everything was answered again."""
        self.refused = 0
        """How many requests were refused or lost from a fault until everything was answered again."""
        self._stack = stack
        self._random = random
        self._pending = pending
        self._errors = errors
        self._echo = echo

    async def inject(self, name: str, run: HttpRun) -> None:
        """Inject a fault, and wait until everything is answered again."""
        self.counts[name] += 1
        began_s, refused = time.monotonic(), run.recorder.refused
        await FAULTS[name](run, self._random)
        try:
            async with asyncio.timeout(RECOVERS_WITHIN_S):
                await self._wait_until_recovered()
        except TimeoutError:
            self._errors.add(f"{RECOVERS_WITHIN_S:.0f} s after {name}, not everything is answered again.")
        took_s = time.monotonic() - began_s
        self.recovery_s[name] = max(took_s, self.recovery_s.get(name, 0.0))
        self._echo(f"All is answered again {took_s:.1f} s after it began.")
        self.refused += run.recorder.refused - refused

    async def _wait_until_recovered(self) -> None:
        """Wait until all parts are ready, and the commands sent until then are answered in all partitions."""
        while not await asyncio.to_thread(self._is_ready):  # noqa: ASYNC110  parts report nothing by themselves
            await asyncio.sleep(POLL_S)
        ready_s = time.monotonic()
        while self._pending.answered_to_s < ready_s:  # noqa: ASYNC110  nothing happens at once with it
            await asyncio.sleep(POLL_S)

    def _is_ready(self) -> bool:
        return all(part.is_ready() for part in self._stack.parts)
