"""The gate: the handler that every request passes before its view, and every response after it.

Before the view, the gate reads the body and checks its size, the limit of concurrent requests, and whether
the worker is stopping. After the view, it gives errors one format and adds the headers that every response
has. It is one flat handler rather than a chain of middlewares, because it runs for each request.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from aiohttp import hdrs
from aiohttp.web import (
    BaseRequest,
    HTTPException,
    HTTPMethodNotAllowed,
    HTTPRequestEntityTooLarge,
    Request,
    RequestKey,
    RequestPayloadError,
    Response,
    StreamResponse,
)

from mercuria.http.headers import Cors, RequestIds, complete
from mercuria.http.limits import Limits
from mercuria.http.problems import CONTENT_TYPE, Problem
from mercuria.observability import metrics
from mercuria.observability.tracing import tracing

if TYPE_CHECKING:
    from opentelemetry.trace import Span

logger = logging.getLogger(__name__)

Handler = Callable[[Request], Awaitable[StreamResponse]]

REQUEST_ID = RequestKey("request_id", str)
"""The key of a request's id."""

USER_ID = RequestKey("user_id", str)
"""The key of the id of a request's user, set after authentication."""

SPAN: RequestKey["Span"] = RequestKey("span")
"""The key of a request's span, if it has one."""

ALWAYS_ANSWERED = ("/health/", "/metrics")
"""Prefixes of the paths that are answered even if the worker is overloaded or stopping."""

_OF_AIOHTTP = {
    404: "not_found",
    413: "body_too_large",
    415: "unsupported_media_type",
    417: "expectation_failed",
}


def respond(request: BaseRequest, problem: Problem) -> Response:
    """Return the response that reports a problem."""
    return Response(
        body=problem.document(request[REQUEST_ID]),
        status=problem.http_status,
        headers=problem.all_headers,
        content_type=CONTENT_TYPE,
    )


class Gate:
    """Passes requests to the views of one worker, up to a maximum number at once."""

    def __init__(self, limits: Limits, cors: Cors) -> None:
        self._limits = limits
        self._cors = cors
        self.ids = RequestIds()
        self._all_answered = asyncio.Event()
        self.in_flight = 0
        """The number of requests in flight."""
        self.leaving = False
        """Whether the worker is about to stop: each response closes its connection."""
        self.draining = False
        """Whether the gate refuses requests because the worker is stopping."""

    def around(self, handler: Handler) -> Handler:
        """Return a handler that passes requests to `handler`."""

        async def handle(request: Request) -> StreamResponse:
            began_s = time.monotonic()
            request[REQUEST_ID] = self.ids.of(request)
            if tracing.tracer is not None:
                _begin_span(request)
            try:
                response = await self._refuse(request) or await self._let_through(request, handler)
            except HTTPException as exception:
                response = _translate(request, exception)
            except Exception as exception:
                response = _fail(request, exception)
            duration_s = time.monotonic() - began_s
            route = _route(request)
            metrics.count_request(request.method, route or metrics.UNMATCHED, response.status, duration_s)
            _log_answer(request, route, response.status, duration_s)
            if tracing.tracer is not None:
                _end_span(request, route, response.status)
            return self._complete(request, response)

        return handle

    def answer_unreadable(self, request: BaseRequest, problem: Problem) -> StreamResponse:
        """Respond to data that is not a valid request, and close its connection."""
        request[REQUEST_ID] = self.ids.of(request)
        response = respond(request, problem)
        response.force_close()
        metrics.count_request(request.method, metrics.UNMATCHED, response.status, 0.0)
        return self._complete(request, response)

    async def drain(self) -> None:
        """Refuse new requests, and wait for requests in flight, up to the drain timeout."""
        self.leaving = self.draining = True
        if not self.in_flight:
            return
        try:
            async with asyncio.timeout(self._limits.drain_timeout_s):
                await self._all_answered.wait()
        except TimeoutError:
            logger.warning("The worker stops before %d requests have ended.", self.in_flight)

    async def _let_through(self, request: Request, handler: Handler) -> StreamResponse:
        self.in_flight += 1
        try:
            return await handler(request)
        finally:
            self.in_flight -= 1
            if self.draining and not self.in_flight:
                self._all_answered.set()

    async def _refuse(self, request: Request) -> Response | None:
        """Return the refusal of a request, or None. After None, the body has been read."""
        problem = await self._read(request) if request.body_exists else None
        if problem:
            response = respond(request, problem)
            # The server could not distinguish the rest of the body from the next request.
            response.force_close()
            return response
        if not self.draining and self.in_flight < self._limits.in_flight:
            return None
        if request.path.startswith(ALWAYS_ANSWERED):
            return None
        code = "shutting_down" if self.draining else "overloaded"
        return respond(request, Problem(code))

    async def _read(self, request: Request) -> Problem | None:
        """Read the body, so that no view waits for it; return the problem with it, or None."""
        headers = request.headers
        if headers.get(hdrs.CONTENT_ENCODING, "identity").lower() != "identity":
            return _COMPRESSED
        if (request.content_length or 0) > self._limits.body_bytes:
            return self._too_large()
        if hdrs.EXPECT in headers and not await _continue(request):
            return Problem("expectation_failed")
        if request.content.is_eof():
            # The body arrived together with the headers, like nearly all bodies.
            return await self._read_all(request)
        try:
            async with asyncio.timeout(self._limits.body_timeout_s):
                return await self._read_all(request)
        except TimeoutError:
            return Problem("request_timeout")

    async def _read_all(self, request: Request) -> Problem | None:
        try:
            await request.read()
        except HTTPRequestEntityTooLarge:
            return self._too_large()
        except (RequestPayloadError, ConnectionError):
            return Problem("bad_request", "The body ends too early, or is not chunked as it should be.")
        return None

    def _too_large(self) -> Problem:
        return Problem("body_too_large", f"The body may have up to {self._limits.body_bytes} bytes.")

    def _complete(self, request: BaseRequest, response: StreamResponse) -> StreamResponse:
        complete(response, request[REQUEST_ID])
        if self._cors:
            self._cors.complete(request, response)
        if self.leaving:
            response.force_close()
        return response


_COMPRESSED = Problem(
    "unsupported_media_type", "The body must not be compressed.", headers={hdrs.ACCEPT_ENCODING: "identity"}
)


async def _continue(request: Request) -> bool:
    """Send "100 Continue" to a client that expects it; return False if the client expects something else."""
    if request.headers[hdrs.EXPECT].lower() != "100-continue":
        return False
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    return True


def _translate(request: Request, exception: HTTPException) -> Response:
    """Turn an exception of aiohttp into a response with a problem."""
    if isinstance(exception, HTTPMethodNotAllowed):
        return _other_method(request, exception)
    if exception.status < 400:
        return Response(status=exception.status, headers=exception.headers)
    if exception.status >= 500:
        return _fail(request, exception)
    return respond(request, Problem(_OF_AIOHTTP.get(exception.status, "bad_request")))


def _other_method(request: Request, exception: HTTPMethodNotAllowed) -> Response:
    """Return the allowed methods, as the response to OPTIONS or to a method that is not allowed."""
    allow: dict[str, str] = {hdrs.ALLOW: ", ".join(sorted(exception.allowed_methods | {hdrs.METH_OPTIONS}))}
    if request.method == hdrs.METH_OPTIONS:
        return Response(status=204, headers=allow)
    return respond(request, Problem("method_not_allowed", headers=allow))


def _log_answer(request: Request, route: str | None, status: int, duration_s: float) -> None:
    """Log a response with the request's route, since the path itself may contain personal data."""
    level = logging.WARNING if status >= 500 else logging.INFO
    if request.path.startswith(ALWAYS_ANSWERED):
        # Health checks call these paths every few seconds.
        level = logging.DEBUG
    if logger.isEnabledFor(level):
        fields = {
            "request_id": request[REQUEST_ID],
            "method": request.method,
            "route": route,
            "status": status,
            "duration_ms": round(duration_s * 1000, 3),
            "user_id": request.get(USER_ID),
        }
        logger.log(level, "A request is answered.", extra=fields)


def _begin_span(request: Request) -> None:
    if not request.path.startswith(ALWAYS_ANSWERED):
        span = tracing.begin_request(request.method, request.headers)
        if span is not None:
            request[SPAN] = span


def _end_span(request: Request, route: str | None, status: int) -> None:
    span = request.get(SPAN)
    if span is not None:
        fields = {"mercuria.request_id": request[REQUEST_ID], "user.id": request.get(USER_ID)}
        tracing.end_request(span, request.method, route, status, fields)


def _route(request: Request) -> str | None:
    """Return a request's route as its view declares it; None if no route matches, or none was looked up."""
    # aiohttp's own property asserts that the match exists.
    match = request._match_info
    resource = match.route.resource if match is not None else None
    return resource.canonical if resource is not None else None


def _fail(request: Request, exception: Exception) -> Response:
    """Log a bug with the request id of its response."""
    request_id = request[REQUEST_ID]
    logger.error(
        "Request %s failed: %s %s",
        request_id,
        request.method,
        request.path,
        exc_info=exception,
        extra={"request_id": request_id},
    )
    return respond(request, Problem("internal_error"))
