"""Pagination: pages of lists, newest items first, and the cursors that lead from one page to the next.

A cursor holds the position of a page's last item, so new items do not shift later pages.
"""

import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from datetime import datetime
from typing import Any, Generic, TypeVar

from msgspec import Struct

from mercuria.postgres.copy_text import timestamp

T = TypeVar("T")

LAST_MS = 253_402_300_799_999
"""The last timestamp of the year 9999."""


class Page(Struct, Generic[T], frozen=True):
    """A part of a list; `next_cursor` leads to the next one and is None where there is none."""

    items: list[T]
    next_cursor: str | None = None

    @property
    def has_more(self) -> bool:
        """Whether a next page exists."""
        return self.next_cursor is not None


class PagedList:
    """A list with cursors, which encode positions in the list.

    Args:
        tag: distinguishes cursors of this list from those of other lists.
        name: the name of the list's statement.
        packing: the binary format of a position.
        place_of: returns the position of a row.
        before: returns the statement's parameters for a position; without one, for the beginning.
    """

    def __init__(
        self,
        tag: bytes,
        name: str,
        packing: str,
        place_of: Callable[[Any], tuple[Any, ...]],
        before: Callable[..., dict[str, Any]],
    ) -> None:
        self.name = name
        self._tag = tag
        self._packing = struct.Struct(packing)
        self._place_of = place_of
        self._before = before

    def cursor(self, row: Any) -> str:
        """Return the cursor of the items after a row."""
        return _base64(self._tag + self._packing.pack(*self._place_of(row)))

    def read(self, cursor: str | None) -> dict[str, Any] | None:
        """Return the statement's parameters for the items after a cursor; None if it is not of this list."""
        if cursor is None:
            return self._before()
        try:
            content = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
            place = self._packing.unpack(content.removeprefix(self._tag))
        except (ValueError, struct.error):
            return None
        # The decoder skips characters that are not base64.
        is_own = content.startswith(self._tag) and _base64(content) == cursor
        return self._before(*place) if is_own else None

    def page(self, rows: list[Any], limit: int, read: Callable[[Any], T]) -> Page[T]:
        """Return a page of `rows`. A row beyond `limit` shows that a next page exists."""
        shown = rows[:limit]
        return Page([read(row) for row in shown], self.cursor(shown[-1]) if len(rows) > limit else None)


def moment(at_ms: int | None) -> str:
    """Return a timestamp as a statement's parameter. None sorts after all others."""
    # A forged cursor may hold a number that is not a valid timestamp.
    return "infinity" if at_ms is None else timestamp(min(max(at_ms, 0), LAST_MS))


def milliseconds(moment: datetime) -> int:
    """Return a timestamp as milliseconds since 1970."""
    return round(moment.timestamp() * 1000)


def _base64(content: bytes) -> str:
    return urlsafe_b64encode(content).decode().rstrip("=")
