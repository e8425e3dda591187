"""What the rows of all stages share: where their partitions are, and what of a topic is new to them."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from mercuria.kafka.propagation import NO_TRACE, Trace
from mercuria.projections.checkpoints import Place


class MissingEventError(Exception):
    """A topic misses an event, so that the tables would miss something."""


class SourceEvent(NamedTuple):
    """A record of a topic of events: the event, when it happened, the record's offset and key.

    `trace` are the headers of what is published because of it.
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


class PlacedRows:
    """Rows of some events, and the places of partitions with them.

    Args:
        places: how far each partition is that events may come of.
    """

    def __init__(self, places: Mapping[int, Place]) -> None:
        self.places = dict(places)
        self.outbound: defaultdict[int, list[OutboundEvent]] = defaultdict(list)
        """By partition, what goes to the next topic; what went there before is left out."""
        self.before = dict(places)

    @property
    def moved(self) -> dict[int, Place]:
        """The partitions whose place is another one now."""
        return {number: place for number, place in self.places.items() if place != self.before[number]}

    def skip(self, partition: int, offset: int, event: Any) -> None:
        """Pass over a record. Of `event`, None where it cannot be read, nothing is taken but where it stands.

        So what follows it is not taken for something that is missing, and what comes again is passed over as well.
        """
        place = self.places[partition]
        if offset <= place.read:
            return
        command, sequence = place.command, place.sequence
        if hasattr(event, "sequence"):
            sequence = max(sequence, event.sequence)
        elif event is not None:
            command = max(command, event.offset)
        self.places[partition] = place._replace(read=offset, command=command, sequence=sequence)

    def follow(self, partition: int, events: Iterable[SourceEvent]) -> list[SourceEvent]:
        """Return which records of a numbered topic are new, and let them be the last that were read.

        Raises:
            MissingEventError: the numbers of the events do not follow each other.
        """
        place = self.places[partition]
        read, sequence, new = place.read, place.sequence, list[SourceEvent]()
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
        self.places[partition] = place._replace(read=read, sequence=sequence)
        return new
