"""The page with the documentation of the HTTP API, where people can try it: Swagger UI.

This worker serves the page without the internet: its files come from a Python package. The package's version
is part of their addresses, so that browsers can cache them. The page may load nothing else, run no inline
scripts, and be shown in no frame.
"""

import asyncio
import gzip
from functools import cache
from importlib.metadata import version
from typing import NamedTuple

from aiohttp import hdrs
from aiohttp.web import Request, Response
from swagger_ui_bundle import swagger_ui_path

from mercuria.http.gate import respond
from mercuria.http.problems import Problem
from mercuria.web.page_view import Pages

VERSION = version("swagger-ui-bundle-v2")
CONTENT_TYPES = {
    "swagger-ui.css": "text/css; charset=utf-8",
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "favicon-32x32.png": "image/png",
}

# Swagger UI draws its icons from `data:` addresses.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
UNTIL_CHANGED: dict[str, str] = {hdrs.CACHE_CONTROL: "no-cache"}
FOR_A_YEAR = {hdrs.CACHE_CONTROL: "public, max-age=31536000, immutable", hdrs.VARY: hdrs.ACCEPT_ENCODING}

PAGE = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Mercuria: the HTTP API</title>
<link rel="icon" type="image/png" href="/docs/{VERSION}/favicon-32x32.png">
<link rel="stylesheet" href="/docs/{VERSION}/swagger-ui.css">
<link rel="stylesheet" href="/console/docs.css">
</head>
<body>
<nav class="between">
<strong>HTTP API</strong> <a href="/docs/topics">Topics on Kafka</a> <a href="/console">Console</a>
</nav>
<noscript>The same, for programs: <a href="/api/v1/openapi.json">OpenAPI</a>.</noscript>
<main id="ui"></main>
<script src="/docs/{VERSION}/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"""

START = """SwaggerUIBundle({
  url: "/api/v1/openapi.json",
  dom_id: "#ui",
  deepLinking: true,
  displayRequestDuration: true,
  validatorUrl: null,
  presets: [SwaggerUIBundle.presets.apis],
  layout: "BaseLayout",
});
"""


class Asset(NamedTuple):
    """A file of Swagger UI, plain and compressed."""

    plain: bytes
    compressed: bytes


async def docs(_request: Request) -> Response:
    """Show the page."""
    headers = {**UNTIL_CHANGED, "Content-Security-Policy": POLICY}
    return Response(text=PAGE, content_type="text/html", headers=headers)


async def docs_start(_request: Request) -> Response:
    """Start it: with what could not be in the page, which has no scripts in itself."""
    return Response(text=START, content_type="text/javascript", headers=UNTIL_CHANGED)


async def docs_asset(request: Request) -> Response:
    """Serve a file of Swagger UI."""
    name = request.match_info["name"]
    if request.match_info["version"] != VERSION or name not in CONTENT_TYPES:
        return respond(request, Problem("not_found"))
    found = await asyncio.to_thread(asset, name)
    is_compressed = "gzip" in request.headers.get(hdrs.ACCEPT_ENCODING, "")
    encoding = {hdrs.CONTENT_ENCODING: "gzip"} if is_compressed else {}
    return Response(
        body=found.compressed if is_compressed else found.plain,
        headers={hdrs.CONTENT_TYPE: CONTENT_TYPES[name], **FOR_A_YEAR, **encoding},
    )


@cache
def asset(name: str) -> Asset:
    """Read a file, once."""
    plain = (swagger_ui_path / name).read_bytes()
    return Asset(plain, gzip.compress(plain, mtime=0))


PAGES: Pages = {
    "/docs": docs,
    "/docs/start.js": docs_start,
    "/docs/{version}/{name}": docs_asset,
}
