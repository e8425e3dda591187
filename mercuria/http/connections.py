"""Connections: their maximum number, the time limits for clients, and the response to malformed HTTP."""

import asyncio
import logging
from typing import Any, cast

from aiohttp import hdrs
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from aiohttp.streams import EMPTY_PAYLOAD
from aiohttp.web import BaseRequest, RequestHandler, StreamResponse
from aiohttp.web import Server as AiohttpServer
from aiohttp.web_protocol import _ErrInfo

from mercuria.http.gate import Gate
from mercuria.http.headers import ALWAYS, REQUEST_ID_HEADER
from mercuria.http.limits import Limits, affordable
from mercuria.http.problems import CONTENT_TYPE, Problem

logger = logging.getLogger(__name__)

RESERVED = 32
"""How many connections beyond its limit a worker accepts on its own port, which serves health checks."""


class Connections(AiohttpServer):
    """The open connections of a worker, and their factory."""

    def __init__(self, limits: Limits, gate: Gate, own_port: int | None, **kwargs: Any) -> None:
        super().__init__(
            **kwargs,
            keepalive_timeout=limits.idle_timeout_s,
            lingering_time=limits.lingering_s,
            max_line_size=limits.line_bytes,
            max_field_size=limits.field_bytes,
            max_headers=limits.fields,
            auto_decompress=False,
            access_log=None,
        )
        self.limits = limits
        self.gate = gate
        self._own_port = own_port
        self._room = affordable(limits.connections)
        self._is_full = False

    def __call__(self) -> "Connection":
        """Create a connection for an accepted socket."""
        return Connection(self, loop=self._loop, **self._kwargs)

    def has_room(self, transport: asyncio.Transport) -> bool:
        """Return whether one more connection may be opened."""
        count = len(self._connections)
        was_full, self._is_full = self._is_full, count >= self._room
        if self._is_full and not was_full:
            logger.warning("There are %d connections: no further ones are taken.", count)
        is_own = transport.get_extra_info("sockname")[1] == self._own_port
        return not self._is_full or (is_own and count < self._room + RESERVED)


class Connection(RequestHandler):
    """One connection, with time limits for a client to send headers and to read responses.

    aiohttp enforces the limit for idle connections, and the gate enforces the limit for bodies.
    """

    __slots__ = ("_gate", "_has_begun", "_headers_timer", "_limits", "_reading_timer", "_socket")

    def __init__(self, connections: Connections, **kwargs: Any) -> None:
        super().__init__(connections, **kwargs)
        self._limits = connections.limits
        self._gate = connections.gate
        self._has_begun = False
        self._headers_timer: asyncio.TimerHandle | None = None
        self._reading_timer: asyncio.TimerHandle | None = None
        self._socket: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Accept the connection, or refuse it if the worker has too many."""
        self._socket = cast(asyncio.Transport, transport)
        if not cast(Connections, self._manager).has_room(self._socket):
            self._force_close = True
            self._socket.write(_refusal(self._gate.ids.new()))
            self._socket.close()
            return
        # With this limit, data that the kernel does not take at once pauses writing, so it waits for the client.
        self._socket.set_write_buffer_limits(high=0)
        super().connection_made(transport)
        self._expect_headers()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Stop the timers."""
        super().connection_lost(exc)
        self._stop_expecting()
        self._stop_waiting()
        self._socket = None

    def data_received(self, data: bytes) -> None:
        """Take received data, and watch whether the headers become complete."""
        super().data_received(data)
        if self._is_idle():
            self._has_begun = True
            if self._headers_timer is None:
                self._expect_headers()
        elif self._headers_timer is not None:
            self._stop_expecting()

    def pause_writing(self) -> None:
        """Start the timer within which the client must read its response."""
        super().pause_writing()
        assert self._socket is not None
        self._reading_timer = self._loop.call_later(self._limits.answer_timeout_s, self._socket.abort)

    def resume_writing(self) -> None:
        """Stop that timer: the client has read its response."""
        self._stop_waiting()
        super().resume_writing()

    def handle_error(
        self,
        request: BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> StreamResponse:
        """Respond to data that is not a valid request."""
        if request.writer.output_size > 0:
            raise ConnectionError("A part of the answer is sent, so nothing else can be answered.")
        if status >= 500:
            logger.error("An answer could not be made.", exc_info=exc)
        return self._gate.answer_unreadable(request, self._problem(status, exc))

    def _problem(self, status: int, exc: BaseException | None) -> Problem:
        if status == 408:
            return Problem("request_timeout")
        if status >= 500:
            return Problem("internal_error")
        if isinstance(exc, LineTooLong):
            is_address = exc.args[1] == self._limits.line_bytes
            return Problem("uri_too_long" if is_address else "headers_too_large")
        is_many = isinstance(exc, HttpProcessingError) and exc.message == "Too many headers received"
        return Problem("headers_too_large" if is_many else "bad_request")

    def _is_idle(self) -> bool:
        return self._waiter is not None and not self._waiter.done()

    def _expect_headers(self) -> None:
        self._headers_timer = self._loop.call_later(self._limits.headers_timeout_s, self._end_late)

    def _stop_expecting(self) -> None:
        self._has_begun = False
        if self._headers_timer is not None:
            self._headers_timer.cancel()
            self._headers_timer = None

    def _end_late(self) -> None:
        self._headers_timer = None
        if not self._has_begun:
            # A client that has sent no request would take a response for that to its first request.
            self.force_close()
        elif self._waiter is not None and not self._waiter.done():
            late = HttpProcessingError(code=408, message="The headers are late.")
            self._messages.append((_ErrInfo(408, late, late.message), EMPTY_PAYLOAD))
            self._waiter.set_result(None)

    def _stop_waiting(self) -> None:
        if self._reading_timer is not None:
            self._reading_timer.cancel()
            self._reading_timer = None


def _refusal(request_id: str) -> bytes:
    """Return the response to a connection beyond the limit."""
    body = Problem("overloaded").document(request_id)
    headers = {
        **dict(ALWAYS),
        REQUEST_ID_HEADER: request_id,
        hdrs.CONTENT_TYPE: CONTENT_TYPE,
        hdrs.CONTENT_LENGTH: str(len(body)),
        hdrs.RETRY_AFTER: "1",
        hdrs.CONNECTION: "close",
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 503 Service Unavailable\r\n{lines}\r\n".encode() + body
