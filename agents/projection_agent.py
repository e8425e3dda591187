"""Projections in a worker: Faust reads the topics, PostgreSQL stores the checkpoints (`projections.runner`).

The offsets that Faust commits are used only while PostgreSQL is unavailable.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from faust.types import TP
from mode.utils.logging import get_logger

from mercuria.agents.dead_letters import dead_letter_of
from mercuria.agents.watchdog import LOOK_EVERY_S, Progress, StandstillError, Watchdog
from mercuria.domain.rejections import DETAILS, Code
from mercuria.kafka.crash import crash_on_bug
from mercuria.kafka.producer import Record
from mercuria.kafka.schema import BatchSchema
from mercuria.kafka.skips import Skip, Skipped
from mercuria.postgres.database import DatabaseUnavailable
from mercuria.projections.checkpoints import Checkpoint, Positions
from mercuria.projections.event_reader import EventReader
from mercuria.projections.projection import Projection
from mercuria.projections.relay import Relay
from mercuria.projections.rereading import Rereading
from mercuria.projections.runner import ProjectionRunner
from mercuria.topics import WALLET_DEAD_LETTERS
from mercuria.worker import App

RESUME_WITHIN_S = 1.5
"""How long PostgreSQL is asked for the checkpoints; deciding commands waits for it."""
COMPARE_EVERY_S = 2.0
OUTBOX_LATE_S = 10.0
"""Publishing to Kafka takes milliseconds; after this time, the outbox is late."""

log = get_logger(__name__)


class ProjectionAgent:
    """A projection of this worker: its agent, the task that writes, and the checks that monitor both.

    Args:
        app: the app of this worker, which gets the agent and the checks.
    """

    def __init__(self, app: App, projection: Projection) -> None:
        self._app = app
        self.name = projection.name
        self.topic = projection.topic
        self.positions = Positions(app.database, projection.name)
        self.relay = Relay(self._send_to(projection.outbound)) if projection.outbound is not None else None
        reader = EventReader(projection, partial(app.skips.of, projection.topic), self._keep_skipped)
        rereading = Rereading(projection.name, self.seek)
        self.runner = ProjectionRunner(projection, reader, rereading, self.relay)
        self._lacking: dict[int, int] = {}
        # Whether the topic was found to reach as far as PostgreSQL; False if PostgreSQL was unavailable at the time.
        self._is_checked = True
        self._watchdog = Watchdog()
        self._register()

    def _register(self) -> None:
        app = self._app
        channel = app.topic(
            self.topic,
            # A fetch stays in one piece: pieces without room would block all partitions, including those of commands.
            schema=BatchSchema(cut=False),
            partitions=app.settings.partitions,
        )
        app.agent(channel, name=self.name, isolated_partitions=True)(self._agent)
        app.task(self._run)
        app.timer(interval=COMPARE_EVERY_S)(self.compare)
        app.timer(interval=LOOK_EVERY_S)(self._watch)
        app.positions[self.topic] = self.resume_at
        app.worked_through[self.name] = self._worked_through
        app.stage_waits[self.name] = self._waits

    async def seek(self, partition: int, offset: int) -> None:
        """Reset reading of a partition to an offset."""
        log.warning("Partition %d of %s is read again from %d on.", partition, self.topic, offset)
        try:
            await self._app.consumer.seek_wait({TP(self.topic, partition): offset})
        except Exception:
            # The partition has just been revoked, or Kafka is unavailable. The next comparison finds a gap that is
            # still there.
            log.info("Partition %d of %s cannot be read again now.", partition, self.topic, exc_info=True)

    async def resume_at(self, partitions: Collection[int]) -> Mapping[int, int]:
        """Return the offsets to resume at; none while PostgreSQL does not return the checkpoints."""
        try:
            async with asyncio.timeout(RESUME_WITHIN_S):
                checkpoints = await self.positions.checkpoints()
        except (DatabaseUnavailable, TimeoutError):
            self._is_checked = False
            return {}
        return _follows(partitions, checkpoints)

    async def compare(self) -> None:
        """Read records again that were read, but are neither in PostgreSQL nor queued.

        Reading resumed at the offset that Faust had committed while PostgreSQL was unavailable; or the tables
        were emptied.
        """
        before, self._lacking = self._lacking, {}
        if not self._is_at_work() or self.runner.outage.is_on:
            return
        read = await self._read_offsets()
        with suppress(DatabaseUnavailable):
            checkpoints = await self.positions.checkpoints()
            follows = _follows(read, checkpoints)
            if not self._is_checked:
                self._is_checked = await self._app.check_log(self.topic, follows)
            # Another worker may have owned a partition in the meantime, and died with outbound events to publish.
            self.runner.compare({number: checkpoints.get(number, Checkpoint()) for number in read})
            self._lacking = self._lacks(read, follows)
        for partition, offset in self._lacking.items() & before.items():
            await self.seek(partition, offset)

    def _lacks(self, read: Mapping[int, int], follows: Mapping[int, int]) -> dict[int, int]:
        """Return, by partition, the first offset that was read and that PostgreSQL lacks."""
        return {
            number: offset
            for number, offset in follows.items()
            if offset < read[number] and not self.runner.is_waiting(number)
        }

    def here(self) -> dict[int, Checkpoint]:
        """Return the checkpoints of the partitions that this worker owns, as far as it knows them."""
        if not self._is_at_work():
            return {}
        mine = {tp.partition for tp in self._app.consumer.assignment() if tp.topic == self.topic}
        return {
            number: checkpoint for number, checkpoint in self.runner.checkpoints.items() if number in mine
        }

    async def _agent(self, stream: Any) -> None:
        partition: int | None = None
        try:
            async for event in stream.events():
                partition = event.message.partition
                await self._app.know_skips()
                await self.runner.take(partition, event.value)
        finally:
            if partition is not None:
                self.runner.forget(partition)

    def _worked_through(self) -> dict[int, int]:
        return {number: checkpoint.read + 1 for number, checkpoint in self.here().items()}

    def _waits(self) -> str | None:
        if self.runner.outage.lasts_s:
            return f"it has waited for PostgreSQL for {self.runner.outage.lasts_s:.0f} s"
        if self.relay is not None and self.relay.oldest_s > OUTBOX_LATE_S:
            return f"its outbox has waited for Kafka for {self.relay.oldest_s:.0f} s, with {self.relay.events} events"
        return None

    async def _run(self) -> None:
        with crash_on_bug():
            await self.runner.run()

    async def _watch(self) -> None:
        """End the process if partitions are not read although there are records to read."""
        if not self._is_at_work():
            self._watchdog.look({}, time.monotonic())
            return
        with crash_on_bug():
            still = self._watchdog.look(await self._progress(), time.monotonic())
            if still:
                raise StandstillError(f"Partitions {still} of {self.topic} have not been read for too long.")

    async def _progress(self) -> dict[int, Progress]:
        """Return the progress of this worker's partitions; nothing while Kafka does not answer.

        Partitions with queued records are left out: they wait for PostgreSQL, which may be unavailable for
        long.
        """
        read = {
            number: offset
            for number, offset in (await self._read_offsets()).items()
            if not self.runner.is_waiting(number)
        }
        try:
            ends = await self._app.consumer.highwaters(*(TP(self.topic, number) for number in read))
        except Exception:
            return {}
        known = self.runner.checkpoints
        return {
            tp.partition: Progress(known.get(tp.partition, Checkpoint()).read, read[tp.partition], end, False)
            for tp, end in ends.items()
        }

    async def _read_offsets(self) -> dict[int, int]:
        """Return the next offset to read by partition of this worker; nothing while Kafka does not answer."""
        mine = [tp for tp in self._app.consumer.assignment() if tp.topic == self.topic]
        try:
            return {tp.partition: await self._app.consumer.position(tp) or 0 for tp in mine}
        except Exception:
            # Kafka is unavailable, or the partitions have just been revoked.
            return {}

    def _send_to(self, topic: str) -> Callable[[int, Sequence[Record]], "asyncio.Future[int]"]:
        source = f"{self.name} outbox"
        return lambda partition, records: self._app.batch_producer.enqueue(source, topic, partition, records)

    async def _keep_skipped(self, partition: int, record: Any, skip: Skip) -> None:
        """Keep a skipped event as a dead letter."""
        fault = Skipped(code=Code.SKIPPED, detail=DETAILS[Code.SKIPPED], skip=skip)
        dead = dead_letter_of(partition, record, fault, skip.topic)
        await self._app.batch_producer.enqueue("skipped", WALLET_DEAD_LETTERS, partition, [dead])

    def _is_at_work(self) -> bool:
        app = self._app
        return not (app.rebalancing or app.in_recovery) and bool(app.tables.actives_ready)


def _follows(partitions: Iterable[int], checkpoints: Mapping[int, Checkpoint]) -> dict[int, int]:
    """Return the offsets that follow the checkpoints in PostgreSQL."""
    return {number: checkpoints.get(number, Checkpoint()).read + 1 for number in partitions}
