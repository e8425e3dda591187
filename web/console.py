"""The operator's console: a page that shows current activity, and lets operators freeze wallets.

The console consists of files, which this module serves. In the browser, it uses the same HTTP API as other
clients, so it can do nothing that its user could not do without it. It loads nothing from other hosts and
runs no inline scripts.
"""

import gzip
import hashlib
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from aiohttp import hdrs
from aiohttp.web import Request, Response

from mercuria.http.gate import respond
from mercuria.http.problems import Problem
from mercuria.web.page_view import Pages

INDEX = "index.html"
CONTENT_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # The browser revalidates each file: after an upgrade, all files are of one version.
    hdrs.CACHE_CONTROL: "no-cache",
    hdrs.VARY: hdrs.ACCEPT_ENCODING,
}


class File(NamedTuple):
    """A file of the console, plain and compressed; `tag` changes with its content."""

    content_type: str
    plain: bytes
    compressed: bytes
    tag: str


async def console(request: Request) -> Response:
    """Show the page."""
    return _response(request, console_files()[INDEX])


async def console_file(request: Request) -> Response:
    """Serve one of its files."""
    found = console_files().get(request.match_info["name"])
    if found is None:
        return respond(request, Problem("not_found"))
    return _response(request, found)


@cache
def console_files() -> dict[str, File]:
    """Read the files, once."""
    found = {}
    for file in files("mercuria.web").joinpath("console").iterdir():
        content_type = CONTENT_TYPES.get(file.name.rpartition(".")[2])
        if content_type is not None:
            plain = file.read_bytes()
            tag = f'"{hashlib.sha256(plain).hexdigest()[:32]}"'
            found[file.name] = File(content_type, plain, gzip.compress(plain, mtime=0), tag)
    return found


def _response(request: Request, file: File) -> Response:
    headers = HEADERS | {hdrs.ETAG: file.tag}
    if file.tag in request.headers.get(hdrs.IF_NONE_MATCH, ""):
        return Response(status=304, headers=headers)
    is_compressed = "gzip" in request.headers.get(hdrs.ACCEPT_ENCODING, "")
    if is_compressed:
        headers[hdrs.CONTENT_ENCODING] = "gzip"
    return Response(
        body=file.compressed if is_compressed else file.plain,
        headers=headers | {hdrs.CONTENT_TYPE: file.content_type},
    )


PAGES: Pages = {"/console": console, "/console/{name}": console_file}
