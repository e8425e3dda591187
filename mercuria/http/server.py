"""The server: listens on ports, and stops without interrupting requests in flight."""

import asyncio
from collections.abc import Collection
from contextlib import suppress
from socket import socket as Socket  # noqa: N812  a class

from aiohttp.web import Application, AppRunner, TCPSite
from aiohttp.web import Server as AiohttpServer

from mercuria.http.connections import Connections
from mercuria.http.gate import Gate
from mercuria.http.headers import Cors
from mercuria.http.limits import Limits
from mercuria.observability import metrics

BACKLOG = 1024
CUT_OFF_S = 1
"""How long requests in flight may take when the server stops. After `drain`, there are none."""


class _Runner(AppRunner):
    """Puts the gate before the views, and creates connections with limits."""

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
    """Serves the views of `views`, which `application` creates.

    Args:
        own_port: the port that reaches this worker alone, if it also shares a port with others.
        origins: the origins whose pages may call the API.
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
        """Whether the server is about to stop."""
        return self._gate.leaving

    @property
    def draining(self) -> bool:
        """Whether the server refuses requests because it is stopping."""
        return self._gate.draining

    @property
    def in_flight(self) -> int:
        """The number of requests in flight."""
        return self._gate.in_flight

    @property
    def connections(self) -> int:
        """The number of open connections."""
        server = self._runner.server
        return len(server.connections) if server is not None else 0

    async def start(self) -> None:
        """Prepare to listen."""
        await self._runner.setup()

    async def listen(self, host: str, port: int) -> None:
        """Listen on a port."""
        await TCPSite(self._runner, host, port, backlog=BACKLOG).start()

    async def share(self, host: str, port: int) -> None:
        """Listen on a port that other workers share. The kernel distributes connections among them."""
        loop = asyncio.get_running_loop()
        self._shared = await loop.create_server(self._factory, host, port, backlog=BACKLOG, reuse_port=True)

    async def drain(self) -> None:
        """Leave new connections to other workers. Then refuse new requests, and wait for those in flight."""
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
    """Accept the connections in the socket's queue, which closing would reset; then close the socket."""
    taken = []
    with listening, suppress(BlockingIOError):
        while True:
            connection, _ = listening.accept()
            connection.setblocking(False)
            taken.append(connection)
    return taken
