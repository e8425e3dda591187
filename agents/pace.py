"""The pace of a partition: under load, commands come together and are decided in larger batches.

A batch costs Kafka and the worker nearly the same for one command as for fifty. Where one batch follows right upon
another, a short wait makes both rarer and larger. A command that comes when nothing is under way never waits.
"""

import asyncio
import time
from collections import defaultdict

CYCLE_S = 0.004
"""How far apart batches of a partition begin, when they follow upon each other."""
BEHIND_S = 0.001
"""A batch that is there so soon after the end of another one has come while that was under way."""


class Pace:
    """When the batches of each partition began and ended, by the monotonic clock."""

    def __init__(self, cycle_s: float = CYCLE_S) -> None:
        self._cycle_s = cycle_s
        self._began_s: defaultdict[int, float] = defaultdict(float)
        self._ended_s: defaultdict[int, float] = defaultdict(float)

    async def begin(self, partition: int) -> None:
        """Return when the next batch of a partition may begin."""
        now_s = time.monotonic()
        due_s = self._began_s[partition] + self._cycle_s
        if now_s < due_s and now_s - self._ended_s[partition] < BEHIND_S:
            await asyncio.sleep(due_s - now_s)
        self._began_s[partition] = time.monotonic()

    def end(self, partition: int) -> None:
        """Note that a batch has ended."""
        self._ended_s[partition] = time.monotonic()
