"""Stages in a worker: their topics are read by Faust, and where they are, PostgreSQL says itself (`agents.stage`).

What Faust commits only counts while PostgreSQL is away.
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
from mercuria.agents.stage import Stage, StageRows
from mercuria.agents.watchdog import LOOK_EVERY_S, Progress, StandstillError, Watchdog
from mercuria.app import app, database, settings
from mercuria.domain.rejections import DETAILS, Code
from mercuria.kafka.crash import crash_on_bug
from mercuria.kafka.producer import Record
from mercuria.kafka.schema import BatchSchema
from mercuria.kafka.skips import Skip, Skipped
from mercuria.postgres.database import DatabaseUnavailable
from mercuria.projections.checkpoints import Place, Positions
from mercuria.projections.relay import Relay
from mercuria.projections.store import StageTables
from mercuria.topics import WALLET_DEAD_LETTERS

RESUME_WITHIN_S = 1.5
"""PostgreSQL is asked for so long where to go on; deciding commands waits for that."""
COMPARE_EVERY_S = 2.0
OUTBOX_LATE_S = 10.0
"""What Kafka is told takes milliseconds."""

log = get_logger(__name__)


class Staged:
    """A stage of this worker: its agent, the task that writes, and those who look after them.

    Args:
        topic: what is read.
        tables, rows, read, says, how: see `Stage`.
        outbound: the topic to which the stage publishes.
    """

    def __init__(
        self,
        topic: str,
        tables: StageTables[Any],
        rows: Callable[[dict[int, Place]], StageRows],
        read: Callable[[bytes], tuple[Any, int]],
        *,
        says: str,
        outbound: str | None = None,
        **how: Any,
    ) -> None:
        self.name = tables.stage
        self.topic = topic
        self.positions = Positions(database, tables.stage)
        self.relay = Relay(self._send_to(outbound)) if outbound is not None else None
        self.stage = Stage(
            tables,
            rows,
            read,
            self.seek,
            topic=topic,
            says=says,
            relay=self.relay,
            skips=partial(app.skips.of, topic),
            on_skipped=keep_skipped,
            **how,
        )
        self._lacking: dict[int, int] = {}
        # Whether it was seen that the topic reaches as far as PostgreSQL; if not, PostgreSQL was away at the time.
        self._is_checked = True
        self._watchdog = Watchdog()
        channel = app.topic(
            topic,
            # A fetch in one piece: pieces for which there is no room would hold up all partitions, those of commands
            # included.
            schema=BatchSchema(cut=False),
            partitions=settings.partitions,
        )
        app.agent(channel, name=self.name, isolated_partitions=True)(self._agent)
        app.task(self._run)
        app.timer(interval=COMPARE_EVERY_S)(self.compare)
        app.timer(interval=LOOK_EVERY_S)(self._watch)
        app.positions[topic] = self.resume_at
        app.worked_through[self.name] = self._worked_through
        app.stage_waits[self.name] = self._waits

    async def seek(self, partition: int, offset: int) -> None:
        """Let reading of a partition go back to an offset."""
        log.warning("Partition %d of %s is read again from %d on.", partition, self.topic, offset)
        try:
            await app.consumer.seek_wait({TP(self.topic, partition): offset})
        except Exception:
            # The partition has just been taken away, or Kafka is. A gap that is still there is noticed again.
            log.info("Partition %d of %s cannot be read again now.", partition, self.topic, exc_info=True)

    async def resume_at(self, partitions: Collection[int]) -> Mapping[int, int]:
        """Return the offsets to go on with; none while PostgreSQL does not say where the partitions are."""
        try:
            async with asyncio.timeout(RESUME_WITHIN_S):
                places = await self.positions.places()
        except (DatabaseUnavailable, TimeoutError):
            self._is_checked = False
            return {}
        return _follows(partitions, places)

    async def compare(self) -> None:
        """Read again what was read and is not in PostgreSQL, nor waits to be written.

        It was read on from where Faust had committed, while PostgreSQL was away; or the tables have been emptied.
        """
        before, self._lacking = self._lacking, {}
        if not _is_at_work() or self.stage.is_away:
            return
        read = await self._read_offsets()
        with suppress(DatabaseUnavailable):
            places = await self.positions.places()
            follows = _follows(read, places)
            if not self._is_checked:
                self._is_checked = await app.check_log(self.topic, follows)
            # Another worker may have had a partition meanwhile, and died with something to tell.
            self.stage.compare({number: places.get(number, Place()) for number in read})
            self._lacking = self._lacks(read, follows)
        for partition, offset in self._lacking.items() & before.items():
            await self.seek(partition, offset)

    def _lacks(self, read: Mapping[int, int], follows: Mapping[int, int]) -> dict[int, int]:
        """Return where PostgreSQL lacks something before the offsets that are read next, and from where on."""
        return {
            number: offset
            for number, offset in follows.items()
            if offset < read[number] and not self.stage.is_waiting(number)
        }

    def here(self) -> dict[int, Place]:
        """Return where the partitions are that are this worker's now, as far as it knows."""
        if not _is_at_work():
            return {}
        mine = {tp.partition for tp in app.consumer.assignment() if tp.topic == self.topic}
        return {number: place for number, place in self.stage.places.items() if number in mine}

    async def _agent(self, stream: Any) -> None:
        partition: int | None = None
        try:
            async for event in stream.events():
                partition = event.message.partition
                await app.know_skips()
                await self.stage.take(partition, event.value)
        finally:
            if partition is not None:
                self.stage.forget(partition)

    def _worked_through(self) -> dict[int, int]:
        return {number: place.read + 1 for number, place in self.here().items()}

    def _waits(self) -> str | None:
        if self.stage.away_s:
            return f"it has waited for PostgreSQL for {self.stage.away_s:.0f} s"
        if self.relay is not None and self.relay.oldest_s > OUTBOX_LATE_S:
            return f"its outbox has waited for Kafka for {self.relay.oldest_s:.0f} s, with {self.relay.events} events"
        return None

    async def _run(self) -> None:
        with crash_on_bug():
            await self.stage.run()

    async def _watch(self) -> None:
        """End the process when partitions are not read on although there is something to read."""
        if not _is_at_work():
            self._watchdog.look({}, time.monotonic())
            return
        with crash_on_bug():
            still = self._watchdog.look(await self._progress(), time.monotonic())
            if still:
                raise StandstillError(f"Partitions {still} of {self.topic} have not been read for too long.")

    async def _progress(self) -> dict[int, Progress]:
        """Return how far the partitions of this worker are; nothing while Kafka does not tell.

        Where something waits to be written, PostgreSQL is waited for, which may be away for long.
        """
        read = {
            number: offset
            for number, offset in (await self._read_offsets()).items()
            if not self.stage.is_waiting(number)
        }
        try:
            ends = await app.consumer.highwaters(*(TP(self.topic, number) for number in read))
        except Exception:
            return {}
        known = self.stage.places
        return {
            tp.partition: Progress(known.get(tp.partition, Place()).read, read[tp.partition], end, False)
            for tp, end in ends.items()
        }

    async def _read_offsets(self) -> dict[int, int]:
        """Return what is read next in the partitions of this worker; nothing while Kafka does not tell."""
        mine = [tp for tp in app.consumer.assignment() if tp.topic == self.topic]
        try:
            return {tp.partition: await app.consumer.position(tp) or 0 for tp in mine}
        except Exception:
            # Kafka is away, or the partitions have just been taken.
            return {}

    def _send_to(self, topic: str) -> Callable[[int, Sequence[Record]], "asyncio.Future[int]"]:
        source = f"{self.name} outbox"
        return lambda partition, records: app.batch_producer.enqueue(source, topic, partition, records)


async def keep_skipped(partition: int, record: Any, skip: Skip) -> None:
    """Keep an event that is passed over as a dead letter."""
    fault = Skipped(code=Code.SKIPPED, detail=DETAILS[Code.SKIPPED], skip=skip)
    dead = dead_letter_of(partition, record, fault, skip.topic)
    await app.batch_producer.enqueue("skipped", WALLET_DEAD_LETTERS, partition, [dead])


def _follows(partitions: Iterable[int], places: Mapping[int, Place]) -> dict[int, int]:
    """Return the offsets that follow what PostgreSQL has."""
    return {number: places.get(number, Place()).read + 1 for number in partitions}


def _is_at_work() -> bool:
    return not (app.rebalancing or app.in_recovery) and app.tables.actives_ready
