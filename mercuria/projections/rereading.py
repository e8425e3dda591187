"""Reading records again that did not arrive: a reset of the consumer's position, repeated a few times."""

import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

SEEK_TAKES_S = 5.0
MAX_SEEKS = 5


class GapError(Exception):
    """Records are missing, and reading them again did not return them."""


class _Seek(NamedTuple):
    """The offset to which reading was reset, when, and how often without success."""

    offset: int
    at_s: float
    times: int


class Rereading:
    """The resets of one projection.

    Args:
        name: the projection.
        seek: resets reading of a partition to an offset.
        seek_takes_s: how long after a seek records from before it may still arrive.
    """

    def __init__(
        self, name: str, seek: Callable[[int, int], Awaitable[None]], seek_takes_s: float = SEEK_TAKES_S
    ) -> None:
        self._name = name
        self._seek = seek
        self._seek_takes_s = seek_takes_s
        self._seeks: dict[int, _Seek] = {}

    async def read_again(self, partition: int, offset: int) -> None:
        """Reset reading to an offset, unless that just happened and records from before it still arrive.

        Raises:
            GapError: reading was reset several times, and the missing records did not arrive.
        """
        last, now_s = self._seeks.get(partition), time.monotonic()
        times = last.times if last is not None and last.offset == offset else 0
        if last is not None and times and now_s < last.at_s + self._seek_takes_s:
            return
        if times >= MAX_SEEKS:
            raise GapError(f"Projection {self._name}: partition {partition} does not go on at {offset}.")
        self._seeks[partition] = _Seek(offset, now_s, times + 1)
        await self._seek(partition, offset)

    def forget(self, partition: int) -> None:
        """Forget the resets of a partition: its records have arrived, or it is another worker's."""
        self._seeks.pop(partition, None)
