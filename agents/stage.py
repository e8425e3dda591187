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
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, NamedTuple, Protocol, TypeVar

from mode.utils.logging import get_logger

from mercuria.kafka.cloudevents import envelop_numbered
from mercuria.kafka.crash import RecordError
from mercuria.kafka.producer import Record
from mercuria.kafka.propagation import NO_TRACE, propagated
from mercuria.kafka.record_batches import UnreadableRecord
from mercuria.kafka.record_tracing import Ids, RecordTracing, ids_of_event
from mercuria.kafka.skips import NONE, Skip
from mercuria.kafka.transport import Fetched
from mercuria.observability import metrics
from mercuria.postgres.database import DatabaseUnavailable
from mercuria.projections.checkpoints import Place
from mercuria.projections.relay import OutboxBatch, Relay, outbox_batch_of, pack
from mercuria.projections.rows import MissingEventError, OutboundEvent, SourceEvent
from mercuria.projections.store import OutboxRow, StageTables

PACE_S = 0.1
"""Events that arrive within this time are cheaper to write together, and the delay is short.

An event that arrives when the projection is idle is written immediately.
"""
ENOUGH = 500
"""With this many events, adding more hardly makes a transaction cheaper."""
MAX_ROWS = 2_500
SLICE = 50
"""After this many events, the loop yields to other tasks: commands are decided on the same event loop."""
MAX_WAITING = 8
"""How many fetches of a partition may be queued here; further ones wait in Kafka."""

DROP_AFTER_S = 0.2
"""After this time, published events are removed from the outbox, even if nothing else is to be written."""

LOCKED_RETRY_S = 0.2
SHORTEST_RETRY_S = 0.02
LONGEST_RETRY_S = 2.0

SEEK_TAKES_S = 5.0
MAX_SEEKS = 5

log = get_logger(__name__)

T = TypeVar("T")


class GapError(Exception):
    """Records are missing, and reading them again did not return them."""


class _Sought(NamedTuple):
    """The offset to which reading was reset, when, and how often without success."""

    offset: int
    at_s: float
    times: int


class StageRows(Protocol):
    """The rows of some events, as a projection makes them (`projections.wallets.rows.Rows` is one).

    `places` holds the checkpoints after these rows, and `outbound` the events for the next topic by
    partition.
    """

    places: dict[int, Place]
    outbound: defaultdict[int, list[OutboundEvent]]

    def take(self, partition: int, events: Iterable[SourceEvent]) -> None:
        """Add the next records of a partition. Records that are already stored are left out."""

    def skip(self, partition: int, offset: int, event: Any) -> None:
        """Skip a record of a partition. `event` is None if it cannot be read."""

    @property
    def size(self) -> int:
        """The approximate number of rows."""

    @property
    def moved(self) -> dict[int, Place]:
        """The partitions whose checkpoint has changed."""

    def texts(self) -> Any:
        """Return the COPY payload."""


class Stage:
    """The queue of a projection, and the task that writes it.

    Args:
        tables: the projection's tables in PostgreSQL.
        rows: makes rows of the events that follow some checkpoints.
        read: reads an event and its time in ms from a record's value.
        topic: the topic that the projection reads.
        says: a label for what the projection writes, for log messages.
        relay: publishes outbound events to the next topic, if the projection has any.
        seek: resets reading of a partition to an offset.
        seek_takes_s: how long after a seek records from before it may still arrive.
        max_rows: a transaction with more rows is complete; larger ones would save little, and block others.
        pace_s: the minimum time between the starts of two transactions, unless `enough` events are queued.
        enough: the number of events that starts a transaction early.
        on_written: is called when rows have been written.
        skips: returns the skipped records of a partition by offset.
        on_skipped: is called for each skipped record, possibly more than once.
    """

    def __init__(
        self,
        tables: StageTables[Any],
        rows: Callable[[dict[int, Place]], StageRows],
        read: Callable[[bytes], tuple[Any, int]],
        seek: Callable[[int, int], Awaitable[None]],
        *,
        topic: str,
        says: str,
        relay: Relay | None = None,
        seek_takes_s: float = SEEK_TAKES_S,
        max_rows: int = MAX_ROWS,
        pace_s: float = PACE_S,
        enough: int = ENOUGH,
        on_written: Callable[[], None] = lambda: None,
        skips: Callable[[int], Mapping[int, Skip]] = lambda _: NONE,
        on_skipped: Callable[[int, Any, Skip], Awaitable[None]] | None = None,
    ) -> None:
        self.places: dict[int, Place] = {}
        """The checkpoints of the partitions as this worker last wrote them."""
        self._tables = tables
        self._rows = rows
        self._read = read
        self._seek = seek
        self._says = says
        self._stored = RecordTracing(tables.stage, "project", topic, "An event is in PostgreSQL.", self._ids)
        self._relay = relay
        self._seek_takes_s = seek_takes_s
        self._max_rows = max_rows
        self._pace_s = pace_s
        self._enough = enough
        self._on_written = on_written
        self._skips = skips
        self._on_skipped = on_skipped
        self._topic = topic
        # The number of events that are still written one by one, to find the event that cannot be written; and the
        # current one.
        self._one_by_one = 0
        self._at: tuple[int, int] | None = None
        self._waiting: defaultdict[int, deque[Fetched]] = defaultdict(deque)
        self._some = asyncio.Event()
        self._has_enough = asyncio.Event()
        self._room = asyncio.Condition()
        self._sought: dict[int, _Sought] = {}
        self._away_since_s: float | None = None
        self._retry_s = 0.0
        self._rows_written = metrics.stage_rows.labels(tables.stage)
        self._write_s = metrics.stage_write_s.labels(tables.stage)
        metrics.stage_waiting.labels(tables.stage).set_function(lambda: float(self.is_away))
        if relay is not None:
            metrics.outbox_events.labels(tables.stage).set_function(lambda: relay.events)
            metrics.outbox_oldest_s.labels(tables.stage).set_function(lambda: relay.oldest_s)
        # It has its own thread: password hashing may occupy all of the shared ones.
        self._thread = ThreadPoolExecutor(1, tables.stage)
        self._to_look_at: set[int] = set()
        # Partitions that were forgotten during a transaction: their checkpoints and batches no longer belong to this
        # worker.
        self._forgotten: set[int] = set()
        self._is_drop_due = False
        if relay is not None:
            relay.on_published = self._drop_soon

    @property
    def is_away(self) -> bool:
        """Whether PostgreSQL is unavailable, as far as this projection knows."""
        return self._away_since_s is not None

    @property
    def away_s(self) -> float:
        """For how long PostgreSQL has been unavailable; 0 while it is available."""
        return 0.0 if self._away_since_s is None else time.monotonic() - self._away_since_s

    def is_waiting(self, partition: int) -> bool:
        """Return whether records of a partition are not written yet."""
        return bool(self._waiting[partition])

    async def take(self, partition: int, records: Fetched) -> None:
        """Queue the next records of a partition once there is room for them."""
        waiting = self._waiting[partition]
        async with self._room:
            await self._room.wait_for(lambda: len(waiting) < MAX_WAITING)
        waiting.append(records)
        self._some.set()
        self._look_for_enough()

    def look_at(self, partitions: Collection[int]) -> None:
        """Check the outbox for batches of partitions, even if no events arrive."""
        self._to_look_at.update(partitions)
        self._some.set()

    def compare(self, places: Mapping[int, Place]) -> None:
        """Check the outbox for partitions whose checkpoint differs from the local one, even without events.

        Args:
            places: the checkpoints of this worker's partitions, as PostgreSQL has them.
        """
        self.look_at([number for number, place in places.items() if self.places.get(number) != place])

    def forget(self, partition: int) -> None:
        """Drop the queue of a partition: another worker owns it now, or it is read again."""
        self._waiting[partition].clear()
        self._to_look_at.discard(partition)
        self._forgotten.add(partition)
        self._sought.pop(partition, None)
        self.places.pop(partition, None)
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
                await self._some.wait()
                if self._relay is not None:
                    await self._relay.room()
                due_s = time.monotonic() + self._pace_s
                await self._step()
                await self._gather(due_s)
        finally:
            # A write that is still running in the thread takes effect or does not; this task does not wait for it.
            self._tables.interrupt()
            self._thread.shutdown(wait=False)

    async def _gather(self, until_s: float) -> None:
        """Wait until `until_s`, until there are enough events, or until the queue of a partition is full."""
        self._has_enough.clear()
        self._look_for_enough()
        with suppress(TimeoutError):
            # `wait_for` of Python 3.11 loses a cancellation that arrives together with the result.
            async with asyncio.timeout(until_s - time.monotonic()):
                await self._has_enough.wait()

    def _look_for_enough(self) -> None:
        events = sum(len(piece) for waiting in self._waiting.values() for piece in waiting)
        if events >= self._enough or any(len(waiting) >= MAX_WAITING for waiting in self._waiting.values()):
            self._has_enough.set()

    async def _step(self) -> None:
        """Write queued events, and reset reading where records are missing."""
        published = dict(self._relay.published) if self._relay is not None else {}
        concerned = {number for number, pieces in self._waiting.items() if pieces} | self._to_look_at
        if self._is_drop_due:
            concerned |= published.keys()
            self._is_drop_due = False
        if not concerned:
            self._some.clear()
            return
        self._forgotten.clear()
        began_s = time.monotonic()
        try:
            places = await self._in_thread(self._tables.begin, sorted(concerned))
            await self._adopt(places)
            missing = await self._write(places, published, began_s)
        except DatabaseUnavailable as error:
            # Even if no events arrive: this attempt alone then shows that PostgreSQL is back.
            self._is_drop_due = bool(published)
            await self._wait_for_postgres(error)
            return
        except (GapError, MissingEventError):
            raise
        except Exception as error:
            await self._look_closer(error)
            return
        self._say_back()
        for partition, offset in missing.items():
            await self._read_again(partition, offset)
        if not places:
            # The previous owner of the partitions still writes them.
            await asyncio.sleep(LOCKED_RETRY_S)

    async def _look_closer(self, error: Exception) -> None:
        """Start to write the queued events one by one, to find the record that cannot be written.

        Raises:
            RecordError: the record is found.
            Exception: the error does not come from a record.
        """
        if self._one_by_one and self._at is not None:
            raise RecordError(self._topic, *self._at) from error
        self._one_by_one = sum(len(piece) for waiting in self._waiting.values() for piece in waiting)
        self._at = None
        if not self._one_by_one:
            raise error
        log.warning(
            "%s cannot be written together, so they are written one by one.", self._says, exc_info=error
        )
        await self._in_thread(self._tables.close)

    async def _adopt(self, places: dict[int, Place]) -> None:
        """Take over the outbox of partitions that another worker wrote last."""
        strange = [number for number, place in places.items() if self.places.get(number) != place]
        if self._relay is not None and strange:
            batches = [outbox_batch_of(*row) for row in await self._in_thread(self._tables.left, strange)]
            for number in self._still_ours(strange):
                self._relay.replace(number, [batch for batch in batches if batch.partition == number])
        self.places.update({number: places[number] for number in self._still_ours(places)})
        self._to_look_at -= places.keys()

    async def _write(
        self, places: dict[int, Place], published: dict[int, int], began_s: float
    ) -> dict[int, int]:
        """Write the events that follow `places`.

        Return where records are missing, with the first missing offset.

        Args:
            began_s: when the transaction began.
        """
        rows, missing, done = self._rows(places), dict[int, int](), list[tuple[int, Fetched]]()
        taken = list[tuple[int, int, Fetched]]()
        for partition, piece in self._in_turn([number for number in self._waiting if number in places]):
            follows = rows.places[partition].read + 1
            records = self._next_one(partition, piece, follows) if self._one_by_one else piece
            if piece.start <= follows:
                await self._take(rows, partition, records)
                taken.append((partition, follows, records))
                missing.pop(partition, None)
            else:
                missing[partition] = follows
            if partition in missing or records[-1] is piece[-1]:
                done.append((partition, piece))
            if rows.size > self._max_rows or self._one_by_one:
                break
        moved = rows.moved
        if moved or published:
            # The payload is built here: in the thread, it would hold the interpreter lock for longer.
            batches = list(_outbox_batches(rows))
            told = [OutboxRow(each.partition, each.sequence, pack(each.records)) for each in batches]
            await self._in_thread(self._tables.write, rows.texts(), moved, told, published)
            self._write_s.observe(time.monotonic() - began_s)
            self._rows_written.inc(rows.size)
            if moved:
                self._on_written()
            if self._relay is not None:
                self._relay.has_left(published)
                # Other batches would overtake those dropped with the partition. Its new owner finds them in the
                # outbox.
                ours = self._still_ours(rows.places)
                self._relay.take(batch for batch in batches if batch.partition in ours)
        else:
            await self._in_thread(self._tables.leave)
        self.places.update({number: rows.places[number] for number in self._still_ours(rows.places)})
        for partition in moved:
            self._sought.pop(partition, None)
        self._one_by_one = max(self._one_by_one - 1, 0)
        for partition, start, piece in taken:
            skips = self._skips(partition)
            stored = (record for record in piece if record.offset >= start and record.offset not in skips)
            self._stored.done(partition, stored, time.monotonic() - began_s)
        await self._drop(done)
        return missing

    def _still_ours(self, partitions: Iterable[int]) -> set[int]:
        return set(partitions) - self._forgotten

    def _next_one(self, partition: int, piece: Fetched, follows: int) -> Fetched:
        """Return the first record of a fetch that is not written yet, or the last one."""
        record = next((each for each in piece if each.offset >= follows), piece[-1])
        self._at = partition, record.offset
        return Fetched([record], piece.start)

    async def _take(self, rows: StageRows, partition: int, records: Fetched) -> None:
        skips = self._skips(partition)
        for start in range(0, len(records), SLICE):
            some = records[start : start + SLICE]
            if not skips or skips.keys().isdisjoint(record.offset for record in some):
                rows.take(partition, self._told(partition, some))
            else:
                for record in some:
                    await self._take_or_skip(rows, partition, record, skips.get(record.offset))
            await asyncio.sleep(0)

    async def _take_or_skip(self, rows: StageRows, partition: int, record: Any, skip: Skip | None) -> None:
        if skip is None:
            rows.take(partition, self._told(partition, [record]))
        elif record.offset > rows.places[partition].read:
            event = None
            with suppress(Exception):
                # Reading the record may be what crashes a worker.
                event = self._read(record.value)[0]
            rows.skip(partition, record.offset, event)
            log.warning("An event is skipped; PostgreSQL lacks it.", extra=skip.facts)
            if self._on_skipped is not None:
                await self._on_skipped(partition, record, skip)

    def _told(self, partition: int, records: list[Any]) -> Iterator[SourceEvent]:
        # One by one, so that the memory of an event is free before the next event is read.
        for record in records:
            if type(record) is UnreadableRecord:
                raise ValueError(f"It cannot be read: {record.fault}.")
            event, time_ms = self._read(record.value)
            headers, offset = record.headers, record.offset
            trace = propagated(headers, self._tables.stage, partition, offset) if headers else NO_TRACE
            yield SourceEvent(event, time_ms, offset, record.key, trace)

    def _ids(self, value: bytes) -> Ids:
        return ids_of_event(self._read(value)[0])

    def _drop_soon(self) -> None:
        """Remove published events from the outbox: with the next rows, or alone if no rows follow."""
        loop = asyncio.get_running_loop()
        loop.call_later(DROP_AFTER_S, self._drop_now)

    def _drop_now(self) -> None:
        if self._relay is not None and (self._relay.published or self._relay.has_failed):
            self._is_drop_due = True
            self._some.set()

    def _in_turn(self, partitions: list[int]) -> Iterator[tuple[int, Fetched]]:
        """Yield the first fetch of each partition, then the second of each, and so on."""
        pieces = {number: tuple(self._waiting[number]) for number in partitions}
        for index in range(max(map(len, pieces.values()), default=0)):
            yield from ((number, each[index]) for number, each in pieces.items() if index < len(each))

    async def _drop(self, done: list[tuple[int, Fetched]]) -> None:
        for partition, piece in done:
            waiting = self._waiting[partition]
            # The queue holds other fetches if the partition was revoked and assigned again in the meantime.
            if waiting and waiting[0] is piece:
                waiting.popleft()
            # The other partitions come first in the next round.
            self._waiting[partition] = self._waiting.pop(partition)
        async with self._room:
            self._room.notify_all()

    async def _read_again(self, partition: int, offset: int) -> None:
        """Reset reading to an offset, unless that just happened and records from before it still arrive.

        Raises:
            GapError: reading was reset several times, and the missing records did not arrive.
        """
        sought, now_s = self._sought.get(partition), time.monotonic()
        times = sought.times if sought is not None and sought.offset == offset else 0
        if sought is not None and times and now_s < sought.at_s + self._seek_takes_s:
            return
        if times >= MAX_SEEKS:
            raise GapError(f"Stage {self._tables.stage}: partition {partition} does not go on at {offset}.")
        self._sought[partition] = _Sought(offset, now_s, times + 1)
        await self._seek(partition, offset)

    async def _in_thread(self, do: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, do, *arguments)

    async def _wait_for_postgres(self, error: DatabaseUnavailable) -> None:
        if self._away_since_s is None:
            self._away_since_s, self._retry_s = time.monotonic(), SHORTEST_RETRY_S
            log.warning("PostgreSQL is away; %s wait to be written to it: %s", self._says, error)
        await asyncio.sleep(self._retry_s)
        self._retry_s = min(2 * self._retry_s, LONGEST_RETRY_S)

    def _say_back(self) -> None:
        if self._away_since_s is not None:
            away_s, self._away_since_s = time.monotonic() - self._away_since_s, None
            log.warning("PostgreSQL is back after %.1f s; %s are written again.", away_s, self._says)


def _outbox_batches(rows: StageRows) -> Iterator[OutboxBatch]:
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
