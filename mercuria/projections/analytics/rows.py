"""Rows of the analytics projection: what entries add to its figures (`domain.analytics`), by partition."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from mercuria.domain.analytics import Figures
from mercuria.projections.checkpoints import Place
from mercuria.projections.rows import PlacedRows, SourceEvent


class Added(NamedTuple):
    """The figures that some entries of a partition add, and its checkpoints before and after them."""

    before: Place
    after: Place
    figures: Figures


class AnalyticsRows(PlacedRows):
    """The figures of some entries of the ledger."""

    def __init__(self, places: Mapping[int, Place]) -> None:
        super().__init__(places)
        self._figures: defaultdict[int, Figures] = defaultdict(Figures)
        self._size = 0

    def take(self, partition: int, events: Iterable[SourceEvent]) -> None:
        """Add the next records of a partition. Records that are counted already are skipped.

        Raises:
            MissingEventError: the numbers of the events do not follow each other.
        """
        new = self.follow(partition, events)
        self._size += len(new)
        self._figures[partition].take(each.event for each in new)

    @property
    def size(self) -> int:
        """The number of entries."""
        return self._size

    def texts(self) -> dict[int, Added]:
        """Return the figures to add, by partition."""
        return {
            number: Added(self.before[number], place, self._figures[number])
            for number, place in self.moved.items()
        }
