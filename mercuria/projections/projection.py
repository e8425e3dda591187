"""What a projection is made of: the topic that it reads, the rows that it makes of events, and its tables."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from mercuria.projections.checkpoints import Checkpoint
from mercuria.projections.registry import PROJECTIONS
from mercuria.projections.rows import OutboundEvent, SourceEvent
from mercuria.projections.store import ProjectionTables

THROTTLE_S = 0.1
"""Events that arrive within this time are cheaper to write together, and the delay is short.

An event that arrives when the projection is idle is written immediately.
"""
ENOUGH = 500
"""With this many events, adding more hardly makes a transaction cheaper."""
MAX_ROWS = 2_500


class ProjectionRows(Protocol):
    """The rows of some events, as a projection makes them (`projections.wallets.rows.Rows` is one).

    `checkpoints` holds the checkpoints after these rows, and `outbound` the events for the next topic by
    partition.
    """

    checkpoints: dict[int, Checkpoint]
    outbound: defaultdict[int, list[OutboundEvent]]

    def take(self, partition: int, events: Iterable[SourceEvent]) -> None:
        """Add the next records of a partition. Records that are already stored are left out."""

    def skip(self, partition: int, offset: int, event: Any) -> None:
        """Skip a record of a partition. `event` is None if it cannot be read."""

    @property
    def size(self) -> int:
        """The approximate number of rows."""

    @property
    def moved(self) -> dict[int, Checkpoint]:
        """The partitions whose checkpoint has changed."""

    def payload(self) -> Any:
        """Return the COPY payload, as the tables take it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Projection:
    """A projection of one topic into PostgreSQL.

    Args:
        read: reads an event and its time in ms from a record's value.
        rows: makes rows of the events that follow some checkpoints.
        tables: takes the rows.
        label: what it writes, for log messages.
        throttle_s: the minimum time between the starts of two transactions, unless `enough` events are queued.
        enough: the number of events that starts a transaction early.
        max_rows: a transaction with more rows is complete; larger ones would save little, and block others.
        on_written: is called when rows have been written.
    """

    read: Callable[[bytes], tuple[Any, int]]
    rows: Callable[[dict[int, Checkpoint]], ProjectionRows]
    tables: ProjectionTables[Any]
    label: str
    throttle_s: float = THROTTLE_S
    enough: int = ENOUGH
    max_rows: int = MAX_ROWS
    on_written: Callable[[], None] = lambda: None

    @property
    def name(self) -> str:
        """The name under which its checkpoints are stored, and by which operators know it."""
        return self.tables.name

    @property
    def topic(self) -> str:
        """The topic that it reads."""
        return PROJECTIONS[self.name].reads

    @property
    def outbound(self) -> str | None:
        """The topic to which it publishes."""
        return PROJECTIONS[self.name].publishes
