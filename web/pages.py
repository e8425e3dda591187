"""Pagination: a list is returned in pages, and a cursor leads from one page to the next."""

from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from msgspec import Meta, Struct

from mercuria.http.problems import Problem
from mercuria.web.endpoint import Answer
from mercuria.web.representations import Page

MAX_PAGE = 100

T = TypeVar("T")

_Cursor = Annotated[str, Meta(max_length=512)]


class PageQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Which part of a list to show."""

    limit: Annotated[int, Meta(ge=1, le=MAX_PAGE, description="How many.")] = 20
    cursor: Annotated[_Cursor | None, Meta(description="`next_cursor` of the page before.")] = None


def page_of(found: Any, body: Callable[[Any], Any]) -> Answer | Problem:
    """Return a page of results, each rendered by `body`."""
    if found is None:
        return Problem("invalid_cursor")
    return Answer(Page([body(each) for each in found.items], found.has_more, found.next_cursor))
