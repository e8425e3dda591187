"""The headers of every response, the ids of requests, and the access of pages of other origins (CORS)."""

import itertools
import re
import secrets
from collections.abc import Collection

from aiohttp import hdrs
from aiohttp.web import BaseRequest, StreamResponse
from multidict import istr

REQUEST_ID_HEADER = istr("X-Request-Id")

# Responses contain nothing for a browser to run or show. Only the documentation does, and it sets its own policy.
ALWAYS = (
    (istr(hdrs.SERVER), "Mercuria"),
    (istr(hdrs.CACHE_CONTROL), "no-store"),
    (istr("X-Content-Type-Options"), "nosniff"),
    (istr("Content-Security-Policy"), "default-src 'none'; frame-ancestors 'none'"),
    (istr("Referrer-Policy"), "no-referrer"),
)

_WELL_FORMED = re.compile(r"[A-Za-z0-9._-]{1,64}").fullmatch

PREFLIGHT_AGE_S = 600
MAY_BE_SENT = "Authorization, Content-Type, Idempotency-Key, Prefer, X-Request-Id"
MAY_BE_READ = "Idempotent-Replayed, Location, Preference-Applied, Retry-After, WWW-Authenticate, X-Request-Id"


class RequestIds:
    """Gives every request an id: the client's own if it is well-formed (up to 64 of `A-Z a-z 0-9 . _ -`)."""

    def __init__(self) -> None:
        self._prefix = secrets.token_hex(6)
        self._numbers = itertools.count(1)

    def of(self, request: BaseRequest) -> str:
        """Return the id of a request."""
        given = request.headers.get(REQUEST_ID_HEADER)
        return given if given is not None and _WELL_FORMED(given) else self.new()

    def new(self) -> str:
        """Return a unique id."""
        return f"{self._prefix}-{next(self._numbers):x}"


def complete(response: StreamResponse, request_id: str) -> None:
    """Add the headers that every response has, unless the view has set them."""
    headers = response.headers
    headers[REQUEST_ID_HEADER] = request_id
    for name, value in ALWAYS:
        headers.setdefault(name, value)


class Cors:
    """Lets pages of certain origins call the API. Tokens are sent in a header; there are no cookies."""

    def __init__(self, origins: Collection[str]) -> None:
        self._origins = frozenset(origins)

    def __bool__(self) -> bool:
        return bool(self._origins)

    def complete(self, request: BaseRequest, response: StreamResponse) -> None:
        """Add the headers that allow the calling page to read the response."""
        headers = response.headers
        # This also applies to refused origins: a cache must not serve one page's response to another.
        headers.add(hdrs.VARY, hdrs.ORIGIN)
        origin = request.headers.get(hdrs.ORIGIN)
        if origin not in self._origins:
            return
        headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
        headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = MAY_BE_READ
        if request.method == hdrs.METH_OPTIONS and hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers:
            headers[hdrs.ACCESS_CONTROL_ALLOW_METHODS] = headers.get(hdrs.ALLOW, "")
            headers[hdrs.ACCESS_CONTROL_ALLOW_HEADERS] = MAY_BE_SENT
            headers[hdrs.ACCESS_CONTROL_MAX_AGE] = str(PREFLIGHT_AGE_S)
