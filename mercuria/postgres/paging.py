"""Pages: lists are read a part at a time, the newest first, and a cursor leads from one part to the next.

A cursor holds the place of a page's last item, so what comes meanwhile moves nothing.
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
"""The last moment of the year 9999."""


class Page(Struct, Generic[T], frozen=True):
    """A part of a list; `next_cursor` leads to the next one and is None where there is none."""

    items: list[T]
    next_cursor: str | None = None

    @property
    def has_more(self) -> bool:
        """Whether there is a next page."""
        return self.next_cursor is not None


class PagedList:
    """How the places of one list are written as cursors, and read.

    Args:
        tag: tells its cursors from those of other lists.
        name: the list's statement.
        packing: of a place.
        place_of: gives the place of a row.
        before: gives the statement's parameters of a place, and of None for the beginning.
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
        """Return the cursor that leads to what comes after a row."""
        return _base64(self._tag + self._packing.pack(*self._place_of(row)))

    def read(self, cursor: str | None) -> dict[str, Any] | None:
        """Return the statement's parameters for what comes after a cursor; None: it is no cursor of this list."""
        if cursor is None:
            return self._before()
        try:
            content = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
            place = self._packing.unpack(content.removeprefix(self._tag))
        except (ValueError, struct.error):
            return None
        # The decoder skips what is no base64.
        is_own = content.startswith(self._tag) and _base64(content) == cursor
        return self._before(*place) if is_own else None

    def page(self, rows: list[Any], limit: int, read: Callable[[Any], T]) -> Page[T]:
        """Return a page of rows, of which there is one more than `limit` where there is a next page."""
        shown = rows[:limit]
        return Page([read(row) for row in shown], self.cursor(shown[-1]) if len(rows) > limit else None)


def moment(at_ms: int | None) -> str:
    """Return a moment as a statement's parameter; None is after all others."""
    # A cursor that somebody has made up may name a moment that is none.
    return "infinity" if at_ms is None else timestamp(min(max(at_ms, 0), LAST_MS))


def milliseconds(moment: datetime) -> int:
    """Return a moment as the number of milliseconds since 1970."""
    return round(moment.timestamp() * 1000)


def _base64(content: bytes) -> str:
    return urlsafe_b64encode(content).decode().rstrip("=")
