"""The server: listens on ports, and stops without breaking what is under way."""

import asyncio
from collections.abc import Collection

from aiohttp.web import Application, AppRunner, TCPSite
from aiohttp.web import Server as AiohttpServer

from mercuria.adapters.http.connections import Connections
from mercuria.adapters.http.gate import Gate
from mercuria.adapters.http.headers import Cors
from mercuria.adapters.http.limits import Limits

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
        self._gate = Gate(limits, Cors(origins))
        self._runner = _Runner(views, limits, self._gate, own_port)
        self._shared: TCPSite | None = None

    @property
    def draining(self) -> bool:
        """Whether it refuses requests because it is about to stop."""
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
        self._shared = TCPSite(self._runner, host, port, backlog=BACKLOG, reuse_port=True)
        await self._shared.start()

    async def drain(self) -> None:
        """Leave new connections to other workers, refuse new requests, and wait for those in flight."""
        if self._shared is not None:
            # Take what the kernel has for this worker already: it would be reset.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            await self._shared.stop()
            self._shared = None
        await self._gate.drain()

    async def stop(self) -> None:
        """Close all ports and connections."""
        await self._runner.cleanup()
