"""Pages: what a worker serves besides the endpoints, such as health checks, metrics, and files of the console."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, ClassVar

from aiohttp.web import Request, Response
from faust.web import View

Page = Callable[[Request], Awaitable[Response]]
Pages = Mapping[str, Page]
"""By path, the function that answers GET and HEAD."""


class PageView(View):
    """The Faust view of one page."""

    page: ClassVar[Page]

    def get_methods(self) -> set[str]:
        """Return the methods that every page takes."""
        return {"GET", "HEAD"}

    async def __call__(self, request: Any) -> Any:
        """Answer a request."""
        return await type(self).page(request)


def views(pages: Pages) -> dict[str, type[View]]:
    """Return the views of pages, by path."""
    return {path: type("Page", (PageView,), {"page": staticmethod(page)}) for path, page in pages.items()}
