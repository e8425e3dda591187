"""The watchdog: ends a worker whose partitions make no progress although there is work.

The supervisor then starts the worker again. Kafka consumers are known to stop silently after rebalances and
broken connections (docs/architecture.md, "Faust pitfalls"). A stalled partition is always worse than a
restart, which loses nothing.
"""

import time
from collections.abc import Mapping
from typing import NamedTuple

from faust.types import TP

from mercuria.app import app, balances, settings
from mercuria.kafka.crash import crash_on_bug
from mercuria.topics import WALLET_COMMANDS

LOOK_EVERY_S = 10.0
STILL_AFTER_S = 60.0


class StandstillError(Exception):
    """Partitions make no progress although there is work."""


class Progress(NamedTuple):
    """The progress of a partition: its decided, read and end offsets, and whether a batch is in progress."""

    decided: int
    read: int
    end: int
    is_deciding: bool

    @property
    def has_work(self) -> bool:
        """Whether the partition should progress: there are records to read, or a batch is being decided."""
        return self.read < self.end or self.is_deciding


class Watchdog:
    """Records since when each partition has made no progress."""

    def __init__(self, still_after_s: float = STILL_AFTER_S) -> None:
        self._still_after_s = still_after_s
        self._seen: dict[int, tuple[tuple[int, int], float]] = {}
        self._looked_s = 0.0

    def look(self, progress: Mapping[int, Progress], now_s: float) -> list[int]:
        """Return the partitions that have had work for too long without progress, as of `now_s`."""
        if now_s - self._looked_s > 3 * LOOK_EVERY_S:
            # The worker, or Kafka that it had to ask, was suspended: no partition could progress.
            self._seen = {}
        self._looked_s = now_s
        seen = {}
        for partition, each in progress.items():
            place = (each.decided, each.read)
            before, since_s = self._seen.get(partition, (place, now_s))
            seen[partition] = (place, since_s if each.has_work and before == place else now_s)
        self._seen = seen
        return [number for number, (_, since_s) in seen.items() if now_s - since_s > self._still_after_s]


watchdog = Watchdog()


@app.timer(interval=LOOK_EVERY_S)  # type: ignore[untyped-decorator]
async def watch() -> None:
    """Check all partitions, and end the process if some make no progress."""
    # Without Redis, deciding pauses by design.
    if app.rebalancing or app.in_recovery or not app.tables.actives_ready or app.locks.is_redis_lost:
        watchdog.look({}, time.monotonic())
        return
    with crash_on_bug():
        still = watchdog.look(await progress(), time.monotonic())
        if still:
            raise StandstillError(
                f"Partitions {still} have had work for {STILL_AFTER_S:.0f} s and stand still."
            )


async def progress() -> dict[int, Progress]:
    """Return the progress of this worker's partitions; nothing while Kafka does not answer."""
    mine = [
        TP(WALLET_COMMANDS, number)
        for number in range(settings.partitions)
        if TP(WALLET_COMMANDS, number) in app.consumer.assignment() and balances.store.is_open(number)
    ]
    try:
        ends = await app.consumer.highwaters(*mine)
        read = {tp: await app.consumer.position(tp) for tp in mine}
    except Exception:
        # Kafka is unavailable, or the partitions have just been revoked: the agent has not stalled.
        return {}
    return {
        tp.partition: Progress(
            balances.position(tp.partition).offset,
            read[tp] or 0,
            ends[tp],
            balances.lock(tp.partition).locked(),
        )
        for tp in mine
        if balances.store.is_open(tp.partition)
    }
