"""Headers that every answer has, the ids of requests, and what pages of other origins may do (CORS)."""

import itertools
import re
import secrets
from collections.abc import Collection

from aiohttp import hdrs
from aiohttp.web import BaseRequest, StreamResponse
from multidict import istr

REQUEST_ID_HEADER = istr("X-Request-Id")

# No browser has anything to run or to show here. The documentation alone has, and brings a policy of its own.
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
    """Gives every request an id: the client's own where it is well-formed (up to 64 of `A-Z a-z 0-9 . _ -`)."""

    def __init__(self) -> None:
        self._prefix = secrets.token_hex(6)
        self._numbers = itertools.count(1)

    def of(self, request: BaseRequest) -> str:
        """Return the id of a request."""
        given = request.headers.get(REQUEST_ID_HEADER)
        return given if given is not None and _WELL_FORMED(given) else self.new()

    def new(self) -> str:
        """Return an id that no other request has."""
        return f"{self._prefix}-{next(self._numbers):x}"


def complete(response: StreamResponse, request_id: str) -> None:
    """Add what every answer has, where the view has not said otherwise."""
    headers = response.headers
    headers[REQUEST_ID_HEADER] = request_id
    for name, value in ALWAYS:
        headers.setdefault(name, value)


class Cors:
    """Lets pages of certain origins call the API. Tokens come in a header: no cookie goes by itself."""

    def __init__(self, origins: Collection[str]) -> None:
        self._origins = frozenset(origins)

    def __bool__(self) -> bool:
        return bool(self._origins)

    def complete(self, request: BaseRequest, response: StreamResponse) -> None:
        """Say whether the page that asks may read the answer."""
        headers = response.headers
        # Also where nobody is let in: a cache must not give one page's answer to another.
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
