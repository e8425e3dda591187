"""Reading a projection's records: from fetches to rows, without the records that an operator has skipped."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from mode.utils.logging import get_logger

from mercuria.kafka.propagation import NO_TRACE, propagated
from mercuria.kafka.record_batches import UnreadableRecord
from mercuria.kafka.record_tracing import Ids, RecordTracing, ids_of_event
from mercuria.kafka.skips import NONE, Skip
from mercuria.kafka.transport import Fetched
from mercuria.projections.projection import Projection, ProjectionRows
from mercuria.projections.rows import SourceEvent

SLICE = 50
"""After this many events, the loop yields to other tasks: commands are decided on the same event loop."""

log = get_logger(__name__)


class EventReader:
    """Reads the events of one projection.

    Args:
        skips: returns the skipped records of a partition by offset.
        on_skipped: is called for each skipped record, possibly more than once.
    """

    def __init__(
        self,
        projection: Projection,
        skips: Callable[[int], Mapping[int, Skip]] = lambda _: NONE,
        on_skipped: Callable[[int, Any, Skip], Awaitable[None]] | None = None,
    ) -> None:
        self._read = projection.read
        self._name = projection.name
        self._skips = skips
        self._on_skipped = on_skipped
        self._stored = RecordTracing(
            projection.name, "project", projection.topic, "An event is in PostgreSQL.", self._ids
        )

    async def add(self, rows: ProjectionRows, partition: int, records: Fetched) -> None:
        """Read the next records of a partition, and add them to `rows`."""
        skips = self._skips(partition)
        for start in range(0, len(records), SLICE):
            some = records[start : start + SLICE]
            if not skips or skips.keys().isdisjoint(record.offset for record in some):
                rows.take(partition, self._events(partition, some))
            else:
                for record in some:
                    await self._add_or_skip(rows, partition, record, skips.get(record.offset))
            await asyncio.sleep(0)

    def report_stored(self, partition: int, start: int, records: Fetched, took_s: float) -> None:
        """Log and trace the records from the offset `start` on: they are in PostgreSQL now."""
        skips = self._skips(partition)
        stored = (record for record in records if record.offset >= start and record.offset not in skips)
        self._stored.done(partition, stored, took_s)

    async def _add_or_skip(
        self, rows: ProjectionRows, partition: int, record: Any, skip: Skip | None
    ) -> None:
        if skip is None:
            rows.take(partition, self._events(partition, [record]))
        elif record.offset > rows.checkpoints[partition].read:
            event = None
            with suppress(Exception):
                # Reading the record may be what crashes a worker.
                event = self._read(record.value)[0]
            rows.skip(partition, record.offset, event)
            log.warning("An event is skipped; PostgreSQL lacks it.", extra=skip.facts)
            if self._on_skipped is not None:
                await self._on_skipped(partition, record, skip)

    def _events(self, partition: int, records: list[Any]) -> Iterator[SourceEvent]:
        # One by one, so that the memory of an event is free before the next event is read.
        for record in records:
            if type(record) is UnreadableRecord:
                raise ValueError(f"It cannot be read: {record.fault}.")
            event, time_ms = self._read(record.value)
            headers, offset = record.headers, record.offset
            trace = propagated(headers, self._name, partition, offset) if headers else NO_TRACE
            yield SourceEvent(event, time_ms, offset, record.key, trace)

    def _ids(self, value: bytes) -> Ids:
        return ids_of_event(self._read(value)[0])
