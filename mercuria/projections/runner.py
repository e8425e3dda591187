"""The projection runner: writes the events of a topic's partitions to PostgreSQL, in order and exactly once.

It writes all partitions of a worker together. One transaction costs the same for one event as for hundreds,
and a transfer whose debit and credit are in two partitions is mostly written once, in its final state.

Each transaction locks the checkpoints of its partitions, drops the events that are already written, and
writes the rows together with the new checkpoints. The result therefore does not depend on what Faust has
acknowledged, on whether a COMMIT was answered, or on other writers. Outbound events are written to the
projection's outbox in the same transaction, and are removed from it once the next topic has them
(`projections.relay`).
"""

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from mode.utils.logging import get_logger

from mercuria.kafka.cloudevents import envelop_numbered
from mercuria.kafka.producer import Record
from mercuria.kafka.transport import Fetched
from mercuria.observability import metrics
from mercuria.postgres.database import DatabaseUnavailable
from mercuria.projections.checkpoints import Checkpoint
from mercuria.projections.database_outage import DatabaseOutage
from mercuria.projections.event_reader import EventReader
from mercuria.projections.fetch_queue import FetchQueue
from mercuria.projections.projection import Projection, ProjectionRows
from mercuria.projections.record_isolation import RecordIsolation
from mercuria.projections.relay import OutboxBatch, Relay, outbox_batch_of, pack
from mercuria.projections.rereading import GapError, Rereading
from mercuria.projections.rows import MissingEventError
from mercuria.projections.store import OutboxRow

DROP_AFTER_S = 0.2
"""After this time, published events are removed from the outbox, even if nothing else is to be written."""

LOCKED_RETRY_S = 0.2

log = get_logger(__name__)

T = TypeVar("T")


@dataclass(slots=True)
class _Transaction:
    """The content of one transaction: rows, the fetches that they come from, and where records are missing."""

    rows: ProjectionRows
    taken: list[tuple[int, int, Fetched]] = field(default_factory=list)
    """Partition, offset of the first new record, and the records."""
    done: list[tuple[int, Fetched]] = field(default_factory=list)
    """The fetches of which nothing remains to be written."""
    missing: dict[int, int] = field(default_factory=dict)
    """By partition, the first missing offset."""


class ProjectionRunner:
    """Writes what is queued of one projection.

    Args:
        reader: reads the projection's records.
        rereading: resets reading where records are missing.
        relay: publishes outbound events to the next topic, if the projection has any.
    """

    def __init__(
        self, projection: Projection, reader: EventReader, rereading: Rereading, relay: Relay | None = None
    ) -> None:
        self.checkpoints: dict[int, Checkpoint] = {}
        """The checkpoints of the partitions as this worker last wrote them."""
        self.outage = DatabaseOutage(projection.label)
        self._projection = projection
        self._tables = projection.tables
        self._reader = reader
        self._rereading = rereading
        self._relay = relay
        self._queue = FetchQueue(projection.enough)
        self._isolation = RecordIsolation(projection.topic)
        self._has_work = asyncio.Event()
        self._to_check: set[int] = set()
        # Partitions that were forgotten during a transaction: their checkpoints and batches no longer belong to this
        # worker.
        self._forgotten: set[int] = set()
        self._is_drop_due = False
        # It has its own thread: password hashing may occupy all of the shared ones.
        self._thread = ThreadPoolExecutor(1, projection.name)
        self._rows_written = metrics.stage_rows.labels(projection.name)
        self._write_s = metrics.stage_write_s.labels(projection.name)
        metrics.stage_waiting.labels(projection.name).set_function(lambda: float(self.outage.is_on))
        if relay is not None:
            relay.on_published = self._drop_soon
            metrics.outbox_events.labels(projection.name).set_function(lambda: relay.events)
            metrics.outbox_oldest_s.labels(projection.name).set_function(lambda: relay.oldest_s)

    def is_waiting(self, partition: int) -> bool:
        """Return whether records of a partition are not written yet."""
        return self._queue.holds(partition)

    async def take(self, partition: int, records: Fetched) -> None:
        """Queue the next records of a partition once there is room for them."""
        await self._queue.put(partition, records)
        self._has_work.set()

    def check_outbox(self, partitions: Collection[int]) -> None:
        """Check the outbox for batches of partitions, even if no events arrive."""
        self._to_check.update(partitions)
        self._has_work.set()

    def compare(self, checkpoints: Mapping[int, Checkpoint]) -> None:
        """Check the outbox for partitions whose checkpoint differs from the local one, even without events.

        Args:
            checkpoints: of this worker's partitions, as PostgreSQL has them.
        """
        self.check_outbox([each for each, one in checkpoints.items() if self.checkpoints.get(each) != one])

    def forget(self, partition: int) -> None:
        """Drop the queue of a partition: another worker owns it now, or it is read again."""
        self._queue.clear(partition)
        self._to_check.discard(partition)
        self._forgotten.add(partition)
        self._rereading.forget(partition)
        self.checkpoints.pop(partition, None)
        if self._relay is not None:
            self._relay.forget(partition)

    async def run(self) -> None:
        """Write queued events until cancelled. Wait for PostgreSQL however long it is unavailable.

        Raises:
            GapError: records are permanently missing.
            RecordError: this record triggers a bug.
            Exception: Kafka did not accept the outbound events.
        """
        try:
            while True:
                await self._has_work.wait()
                if self._relay is not None:
                    await self._relay.room()
                due_s = time.monotonic() + self._projection.throttle_s
                await self._step()
                await self._queue.wait_enough(due_s)
        finally:
            # A write that is still running in the thread takes effect or does not; this task does not wait for it.
            self._tables.interrupt()
            self._thread.shutdown(wait=False)

    async def _step(self) -> None:
        """Write queued events in one transaction, and reset reading where records are missing."""
        published = dict(self._relay.published) if self._relay is not None else {}
        partitions = self._queue.partitions | self._to_check
        if self._is_drop_due:
            partitions |= published.keys()
            self._is_drop_due = False
        if not partitions:
            self._has_work.clear()
            return
        self._forgotten.clear()
        try:
            checkpoints, missing = await self._transact(sorted(partitions), published)
        except DatabaseUnavailable as error:
            # Even if no events arrive: this attempt alone then shows that PostgreSQL is back.
            self._is_drop_due = bool(published)
            await self.outage.wait(error)
            return
        except (GapError, MissingEventError):
            raise
        except Exception as error:
            await self._isolate(error)
            return
        self.outage.end()
        for partition, offset in missing.items():
            await self._rereading.read_again(partition, offset)
        if not checkpoints:
            # The previous owner of the partitions still writes them.
            await asyncio.sleep(LOCKED_RETRY_S)

    async def _isolate(self, error: Exception) -> None:
        """Start to write the queued events one by one, to find the record that cannot be written.

        Raises:
            RecordError: the record is found.
            Exception: the error does not come from a record.
        """
        self._isolation.begin(self._queue.records, error)
        log.warning(
            "%s cannot be written together, so they are written one by one.",
            self._projection.label,
            exc_info=error,
        )
        await self._in_thread(self._tables.close)

    # A transaction: lock the checkpoints, make rows of what follows them, write both, note what was written.

    async def _transact(
        self, partitions: list[int], published: dict[int, int]
    ) -> tuple[dict[int, Checkpoint], dict[int, int]]:
        """Write events of some partitions; drop outbox rows up to the numbers of `published`.

        Returns:
            The checkpoints that no other worker had locked, and by partition, the first missing offset.
        """
        began_s = time.monotonic()
        checkpoints = await self._in_thread(self._tables.begin, partitions)
        await self._adopt(checkpoints)
        transaction = await self._make_rows(checkpoints)
        rows, moved = transaction.rows, transaction.rows.moved
        if moved or published:
            await self._write(rows, moved, published)
            self._write_s.observe(time.monotonic() - began_s)
        else:
            await self._in_thread(self._tables.leave)
        self.checkpoints.update({each: rows.checkpoints[each] for each in self._still_ours(rows.checkpoints)})
        for partition in moved:
            self._rereading.forget(partition)
        self._isolation.written()
        took_s = time.monotonic() - began_s
        for partition, start, records in transaction.taken:
            self._reader.report_stored(partition, start, records, took_s)
        await self._queue.remove(transaction.done)
        return checkpoints, transaction.missing

    async def _adopt(self, checkpoints: dict[int, Checkpoint]) -> None:
        """Take over the outbox of partitions that another worker wrote last."""
        changed = [each for each, one in checkpoints.items() if self.checkpoints.get(each) != one]
        if self._relay is not None and changed:
            batches = [outbox_batch_of(*row) for row in await self._in_thread(self._tables.left, changed)]
            for number in self._still_ours(changed):
                self._relay.replace(number, [batch for batch in batches if batch.partition == number])
        self.checkpoints.update({each: checkpoints[each] for each in self._still_ours(checkpoints)})
        self._to_check -= checkpoints.keys()

    async def _make_rows(self, checkpoints: dict[int, Checkpoint]) -> _Transaction:
        """Make rows of the queued records that follow the checkpoints, up to a whole transaction."""
        rows = self._projection.rows(checkpoints)
        made = _Transaction(rows)
        for partition, fetch in self._queue.in_turn(checkpoints):
            follows = rows.checkpoints[partition].read + 1
            records = fetch
            if self._isolation.is_active:
                records = self._isolation.next_one(partition, fetch, follows)
            if fetch.start <= follows:
                await self._reader.add(rows, partition, records)
                made.taken.append((partition, follows, records))
                made.missing.pop(partition, None)
            else:
                made.missing[partition] = follows
            if partition in made.missing or records[-1] is fetch[-1]:
                made.done.append((partition, fetch))
            if rows.size > self._projection.max_rows or self._isolation.is_active:
                break
        return made

    async def _write(
        self, rows: ProjectionRows, moved: dict[int, Checkpoint], published: dict[int, int]
    ) -> None:
        """Write rows and checkpoints, and hand the outbound events, which the outbox has now, to the relay."""
        # The payload is built here: in the thread, it would hold the interpreter lock for longer.
        batches = list(_outbox_batches(rows))
        outbound = [OutboxRow(each.partition, each.sequence, pack(each.records)) for each in batches]
        await self._in_thread(self._tables.write, rows.payload(), moved, outbound, published)
        self._rows_written.inc(rows.size)
        if moved:
            self._projection.on_written()
        if self._relay is not None:
            self._relay.has_left(published)
            # Other batches would overtake those dropped with the partition. Its new owner finds them in the outbox.
            ours = self._still_ours(rows.checkpoints)
            self._relay.take(batch for batch in batches if batch.partition in ours)

    def _still_ours(self, partitions: Iterable[int]) -> set[int]:
        return set(partitions) - self._forgotten

    def _drop_soon(self) -> None:
        """Remove published events from the outbox: with the next rows, or alone if no rows follow."""
        loop = asyncio.get_running_loop()
        loop.call_later(DROP_AFTER_S, self._drop_now)

    def _drop_now(self) -> None:
        if self._relay is not None and (self._relay.published or self._relay.has_failed):
            self._is_drop_due = True
            self._has_work.set()

    async def _in_thread(self, do: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, do, *arguments)


def _outbox_batches(rows: ProjectionRows) -> Iterator[OutboxBatch]:
    """Group the outbound events into outbox batches, one for each partition."""
    for partition, outbound in rows.outbound.items():
        if outbound:
            records = [
                Record(key, envelop_numbered(event, partition, time_ms), time_ms, trace)
                for event, time_ms, key, trace in outbound
            ]
            size = sum(len(record.value or b"") for record in records)
            yield OutboxBatch(
                partition, outbound[0].event.sequence, outbound[-1].event.sequence, records, size
            )
