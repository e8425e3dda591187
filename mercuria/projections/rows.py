"""The common base of the rows of all projections: checkpoints, and the detection of new records."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from mercuria.kafka.propagation import NO_TRACE, Trace
from mercuria.projections.checkpoints import Checkpoint


class MissingEventError(Exception):
    """A topic lacks an event, so the tables would be incomplete."""


class SourceEvent(NamedTuple):
    """A record of a topic of events: the event, its time, the record's offset and key.

    `trace` holds the headers for records that are published because of the event.
    """

    event: Any
    time_ms: int
    offset: int
    key: bytes | None = None
    trace: Trace = NO_TRACE


class OutboundEvent(NamedTuple):
    """An event for the next topic, with its key and headers."""

    event: Any
    time_ms: int
    key: bytes | None
    trace: Trace


class CheckpointedRows:
    """Rows of some events, and the checkpoints of partitions after these events.

    Args:
        checkpoints: the checkpoint of each partition that may have events.
    """

    def __init__(self, checkpoints: Mapping[int, Checkpoint]) -> None:
        self.checkpoints = dict(checkpoints)
        self.outbound: defaultdict[int, list[OutboundEvent]] = defaultdict(list)
        """By partition, the events for the next topic, without those that were sent before."""
        self.before = dict(checkpoints)

    @property
    def moved(self) -> dict[int, Checkpoint]:
        """The checkpoints that have changed, by partition."""
        return {each: one for each, one in self.checkpoints.items() if one != self.before[each]}

    def skip(self, partition: int, offset: int, event: Any) -> None:
        """Skip a record. Only the position of `event` is used; `event` is None if it cannot be read.

        So the next record does not appear to follow a gap, and a repeated record is skipped as well.
        """
        checkpoint = self.checkpoints[partition]
        if offset <= checkpoint.read:
            return
        command, sequence = checkpoint.command, checkpoint.sequence
        if hasattr(event, "sequence"):
            sequence = max(sequence, event.sequence)
        elif event is not None:
            command = max(command, event.offset)
        self.checkpoints[partition] = checkpoint._replace(read=offset, command=command, sequence=sequence)

    def follow(self, partition: int, events: Iterable[SourceEvent]) -> list[SourceEvent]:
        """Return the new records of a numbered topic, and advance the checkpoint behind them.

        Raises:
            MissingEventError: the numbers of the events do not follow each other.
        """
        checkpoint = self.checkpoints[partition]
        read, sequence, new = checkpoint.read, checkpoint.sequence, list[SourceEvent]()
        for each in events:
            if each.offset <= read:
                continue
            read = each.offset
            if each.event.sequence <= sequence:
                continue
            if each.event.sequence != sequence + 1:
                raise MissingEventError(
                    f"The topic goes on in partition {partition} with number {each.event.sequence} at {read},"
                    f" and had {sequence} before."
                )
            sequence = each.event.sequence
            new.append(each)
        self.checkpoints[partition] = checkpoint._replace(read=read, sequence=sequence)
        return new
