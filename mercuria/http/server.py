"""The server: listens on ports, and stops without breaking what is under way."""

import asyncio
from collections.abc import Collection
from contextlib import suppress
from socket import socket as Socket  # noqa: N812  it is a class

from aiohttp.web import Application, AppRunner, TCPSite
from aiohttp.web import Server as AiohttpServer

from mercuria.http.connections import Connections
from mercuria.http.gate import Gate
from mercuria.http.headers import Cors
from mercuria.http.limits import Limits
from mercuria.observability import metrics

BACKLOG = 1024
CUT_OFF_S = 1
"""How long what is still under way when the server stops may take; drained before, there is nothing."""


class _Runner(AppRunner):
    """Puts the gate before the views, and makes connections that have limits."""

    def __init__(self, views: Application, limits: Limits, gate: Gate, own_port: int | None) -> None:
        super().__init__(views, shutdown_timeout=CUT_OFF_S)
        self._limits = limits
        self._gate = gate
        self._own_port = own_port

    async def _make_server(self) -> AiohttpServer:
        views = await super()._make_server()
        return Connections(
            self._limits,
            self._gate,
            self._own_port,
            handler=self._gate.around(views.request_handler),
            request_factory=views.request_factory,
        )


class Server:
    """Serves the views of `views`, which is made by `application`.

    Args:
        own_port: the port that tells about this worker alone, where it shares another one.
        origins: whose pages may call the API.
    """

    def __init__(
        self,
        views: Application,
        limits: Limits,
        *,
        own_port: int | None = None,
        origins: Collection[str] = (),
    ) -> None:
        self._limits = limits
        self._gate = Gate(limits, Cors(origins))
        self._runner = _Runner(views, limits, self._gate, own_port)
        self._shared: asyncio.Server | None = None
        metrics.http_requests_in_flight.set_function(lambda: self._gate.in_flight)

    @property
    def leaving(self) -> bool:
        """Whether it is about to stop."""
        return self._gate.leaving

    @property
    def draining(self) -> bool:
        """Whether it refuses requests because it stops."""
        return self._gate.draining

    @property
    def in_flight(self) -> int:
        """How many requests are being worked on."""
        return self._gate.in_flight

    @property
    def connections(self) -> int:
        """How many connections are open."""
        server = self._runner.server
        return len(server.connections) if server is not None else 0

    async def start(self) -> None:
        """Get ready to listen."""
        await self._runner.setup()

    async def listen(self, host: str, port: int) -> None:
        """Listen on a port."""
        await TCPSite(self._runner, host, port, backlog=BACKLOG).start()

    async def share(self, host: str, port: int) -> None:
        """Listen on a port on which other workers listen as well: the kernel gives each its part."""
        loop = asyncio.get_running_loop()
        self._shared = await loop.create_server(self._factory, host, port, backlog=BACKLOG, reuse_port=True)

    async def drain(self) -> None:
        """Leave new connections to other workers; then refuse new requests, and wait for those in flight."""
        if self._runner.server is None:
            return
        self._gate.leaving = True
        await self._leave()
        await asyncio.sleep(self._limits.leaving_s)
        await self._gate.drain()

    async def stop(self) -> None:
        """Close all ports and connections."""
        if self._shared is not None:
            self._shared.close()
        await self._runner.cleanup()

    async def _leave(self) -> None:
        """Stop listening on the shared port."""
        if self._shared is None:
            return
        listening = [each.dup() for each in self._shared.sockets]
        self._shared.close()
        self._shared = None
        loop = asyncio.get_running_loop()
        for connection in [each for socket in listening for each in _accept_all(socket)]:
            await loop.connect_accepted_socket(self._factory, connection)

    def _factory(self) -> asyncio.Protocol:
        assert self._runner.server is not None, "started before it listens"
        return self._runner.server()


def _accept_all(listening: Socket) -> list[Socket]:
    """Take the connections that the kernel holds ready for this process, and would reset; close the socket."""
    taken = []
    with listening, suppress(BlockingIOError):
        while True:
            connection, _ = listening.accept()
            connection.setblocking(False)
            taken.append(connection)
    return taken
