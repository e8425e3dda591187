"""The HTTP server: what it takes of clients, what it answers to what is wrong, and how it stops.

The server is the real one on a real port, with a few views of its own; the last tests ask a real worker.
"""

import asyncio
import logging
import socket
import tracemalloc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from uuid import uuid4

import pytest
from aiohttp import web

from mercuria.auth.tokens import Caller, Tokens
from mercuria.config import Settings
from mercuria.embedded.ports import free_port
from mercuria.embedded.stack import Stack
from mercuria.http.limits import Limits
from mercuria.http.server import Server
from tests.web.wire import PATIENCE_S, Reply, Wire, ask, connect

PORT_IS_CLOSED = (ConnectionRefusedError, ConnectionResetError)
LARGE = 8 * 1024 * 1024
ORIGIN = "https://app.example.com"
ONE = b'{"amount": 1}'


class Views:
    """Some views, one of which waits until the test lets it go on."""

    def __init__(self) -> None:
        self.waiting = 0
        self.go_on = asyncio.Event()

    def application(self, limits: Limits) -> web.Application:
        """Return them as aiohttp has it."""
        application = web.Application(client_max_size=limits.body_bytes)
        for method, path, view in (
            ("GET", "/wallet", self.wallet),
            ("HEAD", "/wallet", self.wallet),
            ("POST", "/echo", self.echo),
            ("GET", "/wait", self.wait),
            ("GET", "/broken", self.broken),
            ("GET", "/late", self.late),
            ("GET", "/moved", self.moved),
            ("GET", "/cached", self.cached),
            ("GET", "/large", self.large),
            ("GET", "/health/live", self.wallet),
        ):
            application.router.add_route(method, path, view)
        return application

    async def wallet(self, _request: web.Request) -> web.Response:
        return web.json_response({"balance": 1050})

    async def echo(self, request: web.Request) -> web.Response:
        return web.json_response({"bytes": len(await request.read())})

    async def wait(self, _request: web.Request) -> web.Response:
        self.waiting += 1
        await self.go_on.wait()
        return web.json_response({"waited": True})

    async def broken(self, _request: web.Request) -> web.Response:
        raise ValueError("the secret of the bug")

    async def late(self, _request: web.Request) -> web.Response:
        raise TimeoutError

    async def moved(self, _request: web.Request) -> web.Response:
        raise web.HTTPFound("/wallet")

    async def cached(self, _request: web.Request) -> web.Response:
        return web.Response(headers={"Cache-Control": "max-age=60", "Content-Security-Policy": "none"})

    async def large(self, _request: web.Request) -> web.Response:
        return web.Response(body=bytes(LARGE))


class Served:
    """A server that listens, with its views."""

    def __init__(self, server: Server, views: Views, port: int, shared_port: int) -> None:
        self.server = server
        self.views = views
        self.port = port
        self.shared_port = shared_port

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something has come about."""
        async with asyncio.timeout(PATIENCE_S):
            while not condition():  # noqa: ASYNC110  the server sets no event for what tests wait for
                await asyncio.sleep(0.005)

    async def start_waiting(self, wire: Wire, count: int = 1) -> None:
        """Send a request that is not answered before the test says so, and wait until it is being worked on."""
        await wire.send("GET /wait HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await self.until(lambda: self.views.waiting == count)


@asynccontextmanager
async def serve(limits: Limits | None = None, origins: tuple[str, ...] = ()) -> AsyncIterator[Served]:
    """Run a server."""
    views, port, shared = Views(), free_port(), free_port()
    limits = limits or Limits()
    server = Server(views.application(limits), limits, own_port=port, origins=origins)
    await server.start()
    await server.listen("127.0.0.1", port)
    await server.share("127.0.0.1", shared)
    try:
        yield Served(server, views, port, shared)
    finally:
        views.go_on.set()
        await server.stop()


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    """Return a server with the limits that workers have."""
    async with serve() as running:
        yield running


BAD_REQUESTS = {
    "no HTTP": (b"\x16\x03\x01\x02\x00\r\n\r\n", 400, "bad_request"),
    "no such method": (b"PAY / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_request"),
    "no host": (b"GET /wallet HTTP/1.1\r\n\r\n", 400, "bad_request"),
    "a space in a header's name": (b"GET / HTTP/1.1\r\nHost: a\r\nA b: c\r\n\r\n", 400, "bad_request"),
    "a length and chunks": (
        b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
        "bad_request",
    ),
    "two lengths": (
        b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        400,
        "bad_request",
    ),
    "a bad chunk": (
        b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        400,
        "bad_request",
    ),
    "a long address": (b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414, "uri_too_long"),
    "a large header": (
        b"GET / HTTP/1.1\r\nHost: a\r\nA: " + b"a" * 9000 + b"\r\n\r\n",
        431,
        "headers_too_large",
    ),
    "many headers": (
        b"GET / HTTP/1.1\r\nHost: a\r\n" + b"A: b\r\n" * 100 + b"\r\n",
        431,
        "headers_too_large",
    ),
    "a compressed body": (
        b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n\r\na",
        415,
        "unsupported_media_type",
    ),
    "an expectation": (
        b"POST /echo HTTP/1.1\r\nHost: a\r\nExpect: miracles\r\nContent-Length: 1\r\n\r\na",
        417,
        "expectation_failed",
    ),
}


@pytest.mark.parametrize(("sent", "status", "code"), BAD_REQUESTS.values(), ids=BAD_REQUESTS)
async def test_what_is_wrong_with_a_request_is_a_problem_and_ends_the_connection(
    served: Served, sent: bytes, status: int, code: str
) -> None:
    async with connect(served.port) as wire:
        await wire.send(sent)
        reply = await wire.reply()
        assert (reply.status, reply.code) == (status, code)
        assert_complete(reply)
        assert await wire.is_closed()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/wallet", 200),
        ("HEAD", "/wallet", 200),
        ("OPTIONS", "/wallet", 204),
        ("GET", "/moved", 302),
        ("GET", "/nowhere", 404),
        ("DELETE", "/wallet", 405),
        ("GET", "/broken", 500),
    ],
)
async def test_every_answer_has_the_headers_and_leaves_the_connection_open(
    served: Served, method: str, path: str, status: int
) -> None:
    async with connect(served.port) as wire:
        reply = await wire.ask(method, path)
        assert reply.status == status
        assert_complete(reply)
        assert (await wire.ask("GET", "/wallet")).document == {"balance": 1050}


def assert_complete(reply: Reply) -> None:
    """Check for the headers that every answer has."""
    assert reply.headers["Server"] == "Mercuria"
    assert reply.headers["Cache-Control"] == "no-store"
    assert reply.headers["X-Content-Type-Options"] == "nosniff"
    assert "frame-ancestors 'none'" in reply.headers["Content-Security-Policy"]
    assert reply.headers["Referrer-Policy"] == "no-referrer"
    assert reply.headers["X-Request-Id"]
    assert "Access-Control-Allow-Origin" not in reply.headers


async def test_a_view_may_say_otherwise(served: Served) -> None:
    reply = await ask(served.port, "GET", "/cached")
    assert reply.headers.get_all("Cache-Control") == ["max-age=60"]
    assert reply.headers.get_all("Content-Security-Policy") == ["none"]


async def test_an_unknown_address_and_another_method_are_problems(served: Served) -> None:
    unknown = await ask(served.port, "GET", "/nowhere")
    assert (unknown.status, unknown.code) == (404, "not_found")
    other = await ask(served.port, "DELETE", "/wallet")
    assert (other.status, other.code) == (405, "method_not_allowed")
    assert other.headers["Allow"] == "GET, HEAD, OPTIONS"


async def test_options_tells_the_methods(served: Served) -> None:
    reply = await ask(served.port, "OPTIONS", "/echo")
    assert (reply.status, reply.headers["Allow"], reply.body) == (204, "OPTIONS, POST", b"")
    assert (await ask(served.port, "OPTIONS", "/nowhere")).code == "not_found"


async def test_head_is_get_without_the_body(served: Served) -> None:
    async with connect(served.port) as wire:
        head, get = await wire.ask("HEAD", "/wallet"), await wire.ask("GET", "/wallet")
    assert head.body == b"" and head.headers["Content-Length"] == str(len(get.body))


@pytest.mark.parametrize("path", ["/broken", "/late"])
async def test_a_bug_is_logged_under_the_id_that_the_client_gets(
    served: Served, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        reply = await ask(served.port, "GET", path)
    request_id = reply.headers["X-Request-Id"]
    assert (reply.status, reply.code) == (500, "internal_error")
    assert reply.document["instance"].endswith(request_id)
    assert b"secret" not in reply.body and b"Traceback" not in reply.body
    (record,) = caplog.records
    assert request_id in record.getMessage() and record.exc_info is not None


async def test_a_well_formed_request_id_is_given_back_and_every_other_request_gets_its_own(
    served: Served,
) -> None:
    given = await ask(served.port, "GET", "/nowhere", "X-Request-Id: a.B-c_9")
    assert given.headers["X-Request-Id"] == "a.B-c_9"
    assert given.document["instance"] == "urn:mercuria:request:a.B-c_9"
    made = [
        (await ask(served.port, "GET", "/wallet", *fields)).headers["X-Request-Id"]
        for fields in ([], [], ["X-Request-Id: with space"], ["X-Request-Id: " + "a" * 65], ["X-Request-Id:"])
    ]
    assert len(set(made)) == len(made) and not any(" " in each or "aaa" in each for each in made)


async def test_a_body_may_be_as_large_as_it_says_and_no_larger() -> None:
    async with serve(Limits(body_bytes=1000)) as served:
        assert (await ask(served.port, "POST", "/echo", body=bytes(1000))).document == {"bytes": 1000}
        async with connect(served.port) as wire:
            # It is answered before any of the body has come.
            await wire.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n")
            reply = await wire.reply()
    assert (reply.status, reply.code, reply.headers["Connection"]) == (413, "body_too_large", "close")
    assert "1000" in reply.document["detail"]


async def test_a_body_without_a_length_is_refused_before_it_ends_and_is_not_kept(served: Served) -> None:
    chunk = b"4000\r\n" + bytes(0x4000) + b"\r\n"
    async with connect(served.port) as wire:
        await wire.send("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(5):
            await wire.send(chunk)
        reply = await wire.reply()
        assert (reply.status, reply.code) == (413, "body_too_large")
        tracemalloc.start()
        try:
            for _ in range(10 * 1024 * 1024 // len(chunk)):
                await wire.send(chunk)
        finally:
            _, peak_bytes = tracemalloc.get_traced_memory()
            tracemalloc.stop()
    assert peak_bytes < 2 * 1024 * 1024


async def test_a_chunked_body_is_read(served: Served) -> None:
    async with connect(served.port) as wire:
        await wire.send("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        await wire.send("2\r\nde\r\n0\r\n\r\n")
        assert (await wire.reply()).document == {"bytes": 5}


async def test_a_client_that_waits_to_be_told_sends_its_body_then(served: Served) -> None:
    head = "POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n"
    async with connect(served.port) as wire:
        await wire.send(head.format(3))
        assert (await wire.reply()).status == 100
        await wire.send("abc")
        reply = await wire.reply()
        while reply.status == 100:
            reply = await wire.reply()
        assert reply.document == {"bytes": 3}
    async with connect(served.port) as wire:
        await wire.send(head.format(70_000))
        assert (await wire.reply()).status == 413


async def test_requests_sent_at_once_are_answered_in_their_order(served: Served) -> None:
    async with connect(served.port) as wire:
        await wire.send(
            "GET /wallet HTTP/1.1\r\nHost: a\r\n\r\nGET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n" * 40
        )
        assert [(await wire.reply()).status for _ in range(80)] == [200, 404] * 40


async def test_a_connection_that_says_nothing_is_closed_without_a_word() -> None:
    async with serve(Limits(headers_timeout_s=0.2)) as served, connect(served.port) as wire:
        assert await wire.is_closed()


async def test_headers_that_do_not_end_are_late_however_they_trickle() -> None:
    async with serve(Limits(headers_timeout_s=0.3)) as served, connect(served.port) as wire:

        async def trickle() -> None:
            await wire.send("GET /wallet HTTP/1.1\r\nHost: a\r\nX-Slow: ")
            while not wire.reader.at_eof():
                await wire.send("a")
                await asyncio.sleep(0.01)

        trickling = asyncio.create_task(trickle())
        reply = await wire.reply()
        assert (reply.status, reply.code) == (408, "request_timeout")
        assert_complete(reply)
        assert await wire.is_closed()
        await asyncio.gather(trickling, return_exceptions=True)


async def test_headers_of_a_later_request_may_be_late_as_well() -> None:
    async with serve(Limits(headers_timeout_s=0.2)) as served, connect(served.port) as wire:
        await wire.ask("GET", "/wallet")
        await wire.send("GET /wal")
        assert (await wire.reply()).code == "request_timeout"
        assert await wire.is_closed()


async def test_time_for_headers_is_not_taken_from_views_or_from_later_requests() -> None:
    async with serve(Limits(headers_timeout_s=0.2)) as served, connect(served.port) as wire:
        await wire.send("GET /wait HT")
        await wire.send("TP/1.1\r\nHost: a\r\n\r\n")
        await served.until(lambda: served.views.waiting == 1)
        # That nothing happens can be seen only by waiting.
        await asyncio.sleep(0.4)
        served.views.go_on.set()
        assert (await wire.reply()).document == {"waited": True}
        await asyncio.sleep(0.4)
        assert (await wire.ask("GET", "/wallet")).status == 200


async def test_a_body_that_does_not_end_is_late() -> None:
    limits = Limits(body_timeout_s=0.2, lingering_s=0.1)
    async with serve(limits) as served, connect(served.port) as wire:
        await wire.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc")
        reply = await wire.reply()
        assert (reply.status, reply.code) == (408, "request_timeout")
        assert await wire.is_closed()
        assert served.server.in_flight == 0


async def test_a_body_that_is_cut_off_leaves_nothing_behind(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    async with connect(served.port) as wire:
        await wire.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc")
    await served.until(lambda: served.server.connections == 0)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_an_idle_connection_is_closed() -> None:
    async with serve(Limits(idle_timeout_s=0.2)) as served, connect(served.port) as wire:
        await wire.ask("GET", "/wallet")
        assert await wire.is_closed()


@pytest.mark.parametrize("requests", [1, 3])
async def test_a_client_that_does_not_read_its_answer_is_cut_off(requests: int) -> None:
    async with serve(Limits(answer_timeout_s=0.3)) as served:
        # With asyncio's streams the client's side would read ahead.
        with socket.create_connection(("127.0.0.1", served.port)) as client:
            client.sendall(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n" * requests)
            await served.until(lambda: served.server.connections == 1)
            await served.until(lambda: served.server.connections == 0)


async def test_a_client_that_reads_in_time_gets_all_of_a_large_answer(served: Served) -> None:
    assert len((await ask(served.port, "GET", "/large")).body) == LARGE


async def test_connections_beyond_the_limit_are_told_so_and_closed() -> None:
    async with serve(Limits(connections=2)) as served:
        async with connect(served.shared_port) as first, connect(served.shared_port) as second:
            assert (await first.ask("GET", "/wallet")).status == 200
            assert (await second.ask("GET", "/wallet")).status == 200
            async with connect(served.shared_port) as third:
                reply = await third.reply()
                assert (reply.status, reply.code, reply.headers["Retry-After"]) == (503, "overloaded", "1")
                assert_complete(reply)
                assert await third.is_closed()
            # On its own port, a worker can be asked how it is.
            assert (await ask(served.port, "GET", "/health/live")).status == 200
            assert (await first.ask("GET", "/wallet")).status == 200
        await served.until(lambda: served.server.connections == 0)
        assert (await ask(served.shared_port, "GET", "/wallet")).status == 200


async def test_requests_beyond_the_limit_are_refused_and_health_is_not() -> None:
    async with serve(Limits(in_flight=1)) as served, connect(served.port) as wire:
        await served.start_waiting(wire)
        refused = await ask(served.port, "GET", "/wallet")
        assert (refused.status, refused.code, refused.headers["Retry-After"]) == (503, "overloaded", "1")
        assert (await ask(served.port, "GET", "/health/live")).status == 200
        served.views.go_on.set()
        assert (await wire.reply()).document == {"waited": True}
        assert (await ask(served.port, "GET", "/wallet")).status == 200


async def test_a_server_that_stops_ends_what_it_has_begun_and_begins_nothing() -> None:
    limits = Limits(leaving_s=0, drain_timeout_s=600)
    async with serve(limits) as served, connect(served.port) as begun, connect(served.shared_port) as later:
        await served.start_waiting(begun)
        await later.ask("GET", "/wallet")
        draining = asyncio.create_task(served.server.drain())
        await served.until(lambda: served.server.draining)
        refused = await later.ask("GET", "/wallet")
        assert (refused.status, refused.code) == (503, "shutting_down")
        assert (refused.headers["Connection"], refused.headers["Retry-After"]) == ("close", "1")
        assert await later.is_closed()
        with pytest.raises(PORT_IS_CLOSED):
            await ask(served.shared_port, "GET", "/wallet")
        assert (await ask(served.port, "GET", "/health/live")).status == 200
        assert not draining.done()
        served.views.go_on.set()
        reply = await begun.reply()
        assert (reply.document, reply.headers["Connection"]) == ({"waited": True}, "close")
        async with asyncio.timeout(PATIENCE_S):
            await draining


async def test_a_server_about_to_stop_still_answers_who_has_just_come() -> None:
    async with serve(Limits(leaving_s=60)) as served, connect(served.shared_port) as come:
        draining = asyncio.create_task(served.server.drain())
        await served.until(lambda: served.server.leaving)
        with pytest.raises(PORT_IS_CLOSED):
            await ask(served.shared_port, "GET", "/wallet")
        reply = await come.ask("GET", "/wallet")
        assert (reply.document, reply.headers["Connection"]) == ({"balance": 1050}, "close")
        assert await come.is_closed()
        draining.cancel()


async def test_a_connection_that_only_the_kernel_has_is_not_reset() -> None:
    async with serve(Limits(leaving_s=60)) as served:
        # The server, which shares this thread, has had no moment to accept it.
        client = socket.create_connection(("127.0.0.1", served.shared_port))
        draining = asyncio.create_task(served.server.drain())
        await served.until(lambda: served.server.leaving)
        wire = Wire(*await asyncio.open_connection(sock=client))
        assert (await wire.ask("GET", "/wallet")).status == 200
        draining.cancel()


async def test_a_server_does_not_wait_for_ever_to_stop(caplog: pytest.LogCaptureFixture) -> None:
    async with serve(Limits(leaving_s=0, drain_timeout_s=0.1)) as served, connect(served.port) as wire:
        await served.start_waiting(wire)
        async with asyncio.timeout(PATIENCE_S):
            await served.server.drain()
    assert "before 1 requests have ended" in caplog.text


async def test_a_page_of_another_origin_may_read_answers_where_the_setting_says_so() -> None:
    async with serve(origins=(ORIGIN,)) as served:
        for path in ("/wallet", "/nowhere", "/broken"):
            reply = await ask(served.port, "GET", path, f"Origin: {ORIGIN}")
            assert reply.headers["Access-Control-Allow-Origin"] == ORIGIN
            assert "X-Request-Id" in reply.headers["Access-Control-Expose-Headers"]
            assert reply.headers["Vary"] == "Origin"
        for origin in ("https://evil.example.com", f"{ORIGIN}.evil.example", "null"):
            reply = await ask(served.port, "GET", "/wallet", f"Origin: {origin}")
            assert "Access-Control-Allow-Origin" not in reply.headers
            assert reply.headers["Vary"] == "Origin"


async def test_a_browser_may_ask_beforehand() -> None:
    fields = ("Access-Control-Request-Method: POST", "Access-Control-Request-Headers: idempotency-key")
    async with serve(origins=(ORIGIN,)) as served:
        asked = await ask(served.port, "OPTIONS", "/echo", f"Origin: {ORIGIN}", *fields)
        other = await ask(served.port, "OPTIONS", "/echo", "Origin: https://evil.example.com", *fields)
    assert (asked.status, asked.headers["Access-Control-Allow-Origin"]) == (204, ORIGIN)
    assert asked.headers["Access-Control-Allow-Methods"] == "OPTIONS, POST"
    assert "Idempotency-Key" in asked.headers["Access-Control-Allow-Headers"]
    assert asked.headers["Access-Control-Max-Age"] == "600"
    assert other.status == 204 and not [name for name in other.headers if name.startswith("Access-Control")]


async def test_no_origin_is_let_in_by_default(served: Served) -> None:
    reply = await ask(served.port, "GET", "/wallet", f"Origin: {ORIGIN}")
    assert "Access-Control-Allow-Origin" not in reply.headers and "Vary" not in reply.headers


async def test_a_worker_answers_so_and_shows_nothing_of_faust(live_stack: Stack) -> None:
    port = live_stack.workers[0].port
    head = await ask(port, "HEAD", "/health/ready")
    assert head.status == 200
    assert_complete(head)
    assert (await ask(port, "POST", "/health/ready")).headers["Allow"] == "GET, HEAD, OPTIONS"
    for path in ("/", "/table/", "/router/", "/graph/", "/stats/", "/tables"):
        assert (await ask(port, "GET", path)).code == "not_found"


async def test_a_worker_that_is_stopped_breaks_no_request(live_stack: Stack) -> None:
    environ = {"MERCURIA_DATA_DIR": str(live_stack.directory.path)} | dict(live_stack.env)
    token = Tokens(Settings.from_env(environ)).issue(Caller(uuid4(), "user"))
    fields = (f"Authorization: Bearer {token}", "Content-Type: application/json")
    port = int(live_stack.env["MERCURIA_URL"].rpartition(":")[2])
    opened = await ask(port, "POST", "/api/v1/wallets", *fields, body=b'{"currency": "EUR"}')
    address, stopped = f"/api/v1/wallets/{opened.document['id']}", asyncio.Event()

    async def pay_in() -> int:
        """Pay in until all workers were stopped once; return how often it worked."""
        count = 0
        while not stopped.is_set():
            key = f"Idempotency-Key: {uuid4()}"
            while (await ask(port, "POST", f"{address}/deposit", *fields, key, body=ONE)).status == 503:
                pass
            count += 1
        return count

    paying = asyncio.gather(*(pay_in() for _ in range(8)))
    for worker in live_stack.workers:
        await asyncio.to_thread(worker.stop)
        ending = worker.ending()
        await asyncio.to_thread(worker.start)
        assert ending == "exit code 0"
    stopped.set()
    count = sum(await paying)
    wallet = await ask(port, "GET", f"{address}?consistency=strong", *fields)
    assert wallet.document["balance"] == count
