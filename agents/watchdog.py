"""The watchdog: ends a worker whose partitions make no progress although there is work.

The supervisor then starts the worker again. Kafka consumers are known to stop silently after rebalances and
broken connections (docs/architecture.md, "Faust pitfalls"). A stalled partition is always worse than a
restart, which loses nothing.
"""

import time
from collections.abc import Mapping
from typing import NamedTuple

from faust.types import TP

from mercuria.kafka.crash import crash_on_bug
from mercuria.tables.balances import BalancesTable
from mercuria.tables.registration import Tables
from mercuria.topics import WALLET_COMMANDS
from mercuria.worker import App

LOOK_EVERY_S = 10.0
STILL_AFTER_S = 60.0


def register(app: App, tables: Tables) -> None:
    """Add the watchdog of the command topic to an app."""
    app.timer(interval=LOOK_EVERY_S)(CommandWatch(app, tables.balances).look)


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


class CommandWatch:
    """Ends the process if partitions of the command topic make no progress although there is work."""

    def __init__(self, app: App, balances: BalancesTable) -> None:
        self._app = app
        self._balances = balances
        self._watchdog = Watchdog()

    async def look(self) -> None:
        """Check all partitions.

        Raises:
            StandstillError: some make no progress.
        """
        app = self._app
        # Without Redis, deciding pauses by design.
        if app.rebalancing or app.in_recovery or not app.tables.actives_ready or app.locks.is_redis_lost:
            self._watchdog.look({}, time.monotonic())
            return
        with crash_on_bug():
            still = self._watchdog.look(await self._progress(), time.monotonic())
            if still:
                raise StandstillError(
                    f"Partitions {still} have had work for {STILL_AFTER_S:.0f} s and stand still."
                )

    async def _progress(self) -> dict[int, Progress]:
        """Return the progress of this worker's partitions; nothing while Kafka does not answer."""
        consumer, balances = self._app.consumer, self._balances
        mine = [
            TP(WALLET_COMMANDS, number)
            for number in range(self._app.settings.partitions)
            if TP(WALLET_COMMANDS, number) in consumer.assignment() and balances.store.is_open(number)
        ]
        try:
            ends = await consumer.highwaters(*mine)
            read = {tp: await consumer.position(tp) for tp in mine}
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
