"""The monitor: asks Kafka every few seconds whether it is there, and how much the stages have to do.

So a probe waits for nobody, and one late answer does not make a worker unready.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from typing import NamedTuple

from aiokafka.errors import KafkaError

from mercuria.app import app
from mercuria.topics import WALLET_COMMANDS
from mercuria.web.operations import TOPICS_OF_STAGES

LOOK_EVERY_S = 2.0
ANSWERS_WITHIN_S = 2.0
AWAY_AFTER_S = 10.0
"""Kafka is away when it has not answered for so long: then nothing is decided. Redis has as long."""


class Unread(NamedTuple):
    """What a stage has before it in a partition of its topic: from the offset `done` to before `end`."""

    stage: str
    topic: str
    partition: int
    done: int
    end: int


class HealthMonitor:
    """What Kafka has said last."""

    def __init__(self) -> None:
        self.lag_records: Mapping[str, int] = {}
        """By stage, how many records of this worker's partitions it has not worked through, as of the last look."""
        self.held_up: list[int] = []
        """The partitions of this worker that waited for the end of the same Kafka transaction at the last two looks."""
        self._open: dict[int, int] = {}
        self._answered_s = 0.0
        self._has_missed = False

    def note(self, answered: bool, now_s: float) -> None:
        """Note whether Kafka has answered, as of `now_s` by the monotonic clock."""
        self._has_missed = not answered
        if answered or not self._answered_s:
            self._answered_s = now_s

    def is_kafka_away(self, now_s: float) -> bool:
        """Return whether Kafka has been asked and has not answered for long."""
        # A worker that was suspended has not asked for long, which says nothing of Kafka.
        return self._has_missed and now_s - self._answered_s > AWAY_AFTER_S

    async def look(self) -> None:
        """Ask Kafka."""
        try:
            async with asyncio.timeout(ANSWERS_WITHIN_S):
                self.lag_records = await _lags()
                before, self._open = (
                    self._open,
                    await app.log_ends.held_up(WALLET_COMMANDS, app.own_partitions()),
                )
                self.held_up = [each for each, offset in self._open.items() if before.get(each) == offset]
        except (KafkaError, TimeoutError):
            self.note(False, time.monotonic())
        else:
            self.note(True, time.monotonic())


async def unread() -> AsyncIterator[Unread]:
    """Yield what each stage has before it, of the partitions that are this worker's.

    Raises:
        KafkaError: Kafka does not say where its log ends.
    """
    for stage, worked_through in app.worked_through.items():
        topic = TOPICS_OF_STAGES[stage]
        # It is asked before the end: else it would seem to be ahead of it.
        done = worked_through()
        ends = await app.log_ends.ends(topic, done) if done else {}
        for partition, end in ends.items():
            yield Unread(stage, topic, partition, done[partition], end)


async def _lags() -> dict[str, int]:
    # Also when no partition is this worker's.
    await app.log_ends.ends(WALLET_COMMANDS, [0])
    lags = dict.fromkeys(app.worked_through, 0)
    async for each in unread():
        lags[each.stage] += max(each.end - each.done, 0)
    return lags


monitor = HealthMonitor()


@app.timer(interval=LOOK_EVERY_S)  # type: ignore[untyped-decorator]
async def look() -> None:
    """Look."""
    await monitor.look()
