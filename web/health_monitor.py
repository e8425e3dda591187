"""The health monitor: asks Kafka every few seconds whether it is available, and measures consumer lag.

A probe therefore never waits for another part, and one late answer does not make a worker unready.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from typing import NamedTuple

from aiokafka.errors import KafkaError

from mercuria.topics import WALLET_COMMANDS
from mercuria.web.lag import TOPICS_OF_STAGES
from mercuria.worker import App

LOOK_EVERY_S = 2.0
ANSWERS_WITHIN_S = 2.0
AWAY_AFTER_S = 10.0
"""After this time without an answer, Kafka counts as unavailable, and nothing is decided.

The same holds for Redis.
"""


class Unread(NamedTuple):
    """The consumer lag of a stage in a partition of its topic: from the offset `done` to before `end`."""

    stage: str
    topic: str
    partition: int
    done: int
    end: int


class HealthMonitor:
    """The last answers of Kafka."""

    def __init__(self) -> None:
        self.lag_records: Mapping[str, int] = {}
        """By stage, the consumer lag of this worker's partitions in records, as of the last check."""
        self.held_up: list[int] = []
        """This worker's partitions that waited for the same Kafka transaction at the last two checks."""
        self._open: dict[int, int] = {}
        self._answered_s = 0.0
        self._has_missed = False

    def note(self, answered: bool, now_s: float) -> None:
        """Record whether Kafka has answered, as of `now_s` by the monotonic clock."""
        self._has_missed = not answered
        if answered or not self._answered_s:
            self._answered_s = now_s

    def is_kafka_away(self, now_s: float) -> bool:
        """Return whether Kafka has been asked and has not answered for long."""
        # A worker that was suspended has not asked Kafka for long, so the missing answer does not count.
        return self._has_missed and now_s - self._answered_s > AWAY_AFTER_S

    async def look(self, app: App) -> None:
        """Check Kafka and the consumer lag."""
        try:
            async with asyncio.timeout(ANSWERS_WITHIN_S):
                self.lag_records = await _lags(app)
                before, self._open = (
                    self._open,
                    await app.log_ends.held_up(WALLET_COMMANDS, app.own_partitions()),
                )
                self.held_up = [each for each, offset in self._open.items() if before.get(each) == offset]
        except (KafkaError, TimeoutError):
            self.note(False, time.monotonic())
        else:
            self.note(True, time.monotonic())


async def unread(app: App) -> AsyncIterator[Unread]:
    """Yield the consumer lag of each stage in this worker's partitions.

    Raises:
        KafkaError: Kafka does not return the end of its log.
    """
    for stage, worked_through in app.worked_through.items():
        topic = TOPICS_OF_STAGES[stage]
        # The checkpoint is read before the end offset; otherwise it could be ahead of the end.
        done = worked_through()
        ends = await app.log_ends.ends(topic, done) if done else {}
        for partition, end in ends.items():
            yield Unread(stage, topic, partition, done[partition], end)


async def _lags(app: App) -> dict[str, int]:
    # Kafka is asked even if this worker owns no partition.
    await app.log_ends.ends(WALLET_COMMANDS, [0])
    lags = dict.fromkeys(app.worked_through, 0)
    async for each in unread(app):
        lags[each.stage] += max(each.end - each.done, 0)
    return lags


def start_with(app: App, monitor: HealthMonitor) -> None:
    """Let an app run the check as long as it runs."""

    @app.timer(interval=LOOK_EVERY_S)  # type: ignore[untyped-decorator]
    async def look() -> None:
        await monitor.look(app)
