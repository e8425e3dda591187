"""How fast something grows: a straight line through what was measured, by least squares."""

from collections.abc import Hashable
from dataclasses import dataclass

S_AN_HOUR = 3600.0


@dataclass(slots=True)
class _Sums:
    """Sums over the measurements of one series; times count from its first one, in seconds."""

    first_s: float
    count: int = 0
    t: float = 0.0
    v: float = 0.0
    tt: float = 0.0
    tv: float = 0.0

    def take(self, t: float, value: float) -> None:
        self.count += 1
        self.t += t
        self.v += value
        self.tt += t * t
        self.tv += t * value


class Growth:
    """The slope of one line for all series of a thing, each of which begins at its own height.

    A process that starts again begins a new series, as it begins with little memory: all series have the same slope,
    and what it was before and afterwards is not compared. The first `warm_up_s` of each series do not count.
    """

    def __init__(self, warm_up_s: float) -> None:
        self.last = 0.0
        self._warm_up_s = warm_up_s
        self._series: dict[Hashable, _Sums] = {}

    def take(self, series: Hashable, at_s: float, value: float) -> None:
        """Take a measurement of a series."""
        self.last = value
        sums = self._series.setdefault(series, _Sums(at_s))
        if at_s - sums.first_s >= self._warm_up_s:
            sums.take(at_s - sums.first_s, value)

    @property
    def series(self) -> int:
        """How many series there are."""
        return len(self._series)

    @property
    def measured(self) -> int:
        """How many measurements the slope is made of."""
        return sum(sums.count for sums in self._series.values())

    @property
    def an_hour(self) -> float | None:
        """By how much it grows in an hour; None where nothing was measured twice after the warm-up."""
        counted = [sums for sums in self._series.values() if sums.count > 1]
        spread = sum(sums.tt - sums.t**2 / sums.count for sums in counted)
        common = sum(sums.tv - sums.t * sums.v / sums.count for sums in counted)
        return common / spread * S_AN_HOUR if spread else None
