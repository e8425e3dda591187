"""Rows of the analytics projection: what entries add to its figures (`domain.analytics`), by partition."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from mercuria.domain.analytics import Figures
from mercuria.projections.checkpoints import Checkpoint
from mercuria.projections.rows import CheckpointedRows, SourceEvent


class Added(NamedTuple):
    """The figures that some entries of a partition add, and its checkpoints before and after them."""

    before: Checkpoint
    after: Checkpoint
    figures: Figures


class AnalyticsRows(CheckpointedRows):
    """The figures of some entries of the ledger."""

    def __init__(self, checkpoints: Mapping[int, Checkpoint]) -> None:
        super().__init__(checkpoints)
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

    def payload(self) -> dict[int, Added]:
        """Return the figures to add, by partition."""
        return {
            number: Added(self.before[number], checkpoint, self._figures[number])
            for number, checkpoint in self.moved.items()
        }
