"""The throttle of a partition: under load, commands are collected and decided in larger batches.

A batch costs Kafka and the worker nearly the same for one command as for fifty. If one batch follows
immediately after another, a short wait makes batches fewer and larger. A command that arrives while no batch
is in progress never waits.
"""

import asyncio
import time
from collections import defaultdict

CYCLE_S = 0.004
"""The minimum time between the starts of two consecutive batches of a partition."""
FOLLOWS_WITHIN_S = 0.001
"""A batch that is ready this soon after the end of another one arrived while that was in progress."""


class Throttle:
    """The start and end of the last batch of each partition, by the monotonic clock."""

    def __init__(self, cycle_s: float = CYCLE_S) -> None:
        self._cycle_s = cycle_s
        self._began_s: defaultdict[int, float] = defaultdict(float)
        self._ended_s: defaultdict[int, float] = defaultdict(float)

    async def begin(self, partition: int) -> None:
        """Wait until the next batch of a partition may begin."""
        now_s = time.monotonic()
        due_s = self._began_s[partition] + self._cycle_s
        if now_s < due_s and now_s - self._ended_s[partition] < FOLLOWS_WITHIN_S:
            await asyncio.sleep(due_s - now_s)
        self._began_s[partition] = time.monotonic()

    def end(self, partition: int) -> None:
        """Record the end of a batch."""
        self._ended_s[partition] = time.monotonic()
