"""The first few of many items, for the report on a file that has thousands of faults."""

from bisect import insort
from collections.abc import Iterator
from operator import attrgetter
from typing import Any, Generic, Protocol, TypeVar

SHOWN = 50


class HasLine(Protocol):
    """An item that concerns one line of a file."""

    @property
    def line(self) -> int:
        """The line's number, from 1."""


T = TypeVar("T", bound=HasLine)
_line: Any = attrgetter("line")


class Firsts(Generic[T]):
    """Keeps the items of the lowest lines, in whatever order they are added, and counts all items."""

    def __init__(self, limit: int = SHOWN) -> None:
        self.total = 0
        self._limit = limit
        self._items: list[T] = []

    def __iter__(self) -> Iterator[T]:
        return iter(self._items)

    def __bool__(self) -> bool:
        return self.total > 0

    def add(self, item: T) -> None:
        """Count an item, and keep it if it is among the first."""
        self.total += 1
        if len(self._items) == self._limit and item.line > self._items[-1].line:
            return
        insort(self._items, item, key=_line)
        del self._items[self._limit :]

    @property
    def left_out(self) -> int:
        """How many items were counted and not kept."""
        return self.total - len(self._items)
