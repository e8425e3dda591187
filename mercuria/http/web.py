"""Faust's web driver, on top of Mercuria's own HTTP server."""

from collections.abc import Callable, Collection
from typing import Any

from aiohttp.web import Application, Request
from faust.web.drivers import aiohttp as driver

from mercuria.http.limits import Limits
from mercuria.http.server import Server


class Web(driver.Web):
    """Faust's web server with limits, and with a second port.

    The worker's own port reaches this worker alone. On the shared port, the kernel distributes connections
    among the workers (SO_REUSEPORT), and a worker that has ended receives none.

    Args:
        shared_port: the port on which all workers of this machine listen.
    """

    app: Any

    def __init__(self, app: Any, limits: Limits, shared_port: int, origins: Collection[str] = ()) -> None:
        super().__init__(app)
        self._shared_port = shared_port
        self.web_app = Application(client_max_size=limits.body_bytes)
        own_port = app.conf.web_port if app.conf.web_port != shared_port else None
        self.server = Server(self.web_app, limits, own_port=own_port, origins=origins)

    def _enabled_blueprints(self) -> list[Any]:
        # Faust's own pages would show its tables, which hold all wallets, to every client.
        return []

    def route(self, pattern: str, handler: Callable[..., Any], cors_options: Any = None) -> None:
        """Add a view. A view that answers GET also answers HEAD."""
        view: Any = handler
        methods = set(view.get_methods())
        for method in methods if "GET" in methods else methods - {"HEAD"}:
            self.web_app.router.add_route(method, pattern, view.__call__, expect_handler=_expect_nothing)

    async def on_start(self) -> None:
        """Start the server, without Faust's own CORS, which would process each response a second time."""
        self.init_server()
        self._thread = driver.Server(self, loop=self.loop, beacon=self.beacon)
        self.add_dependency(self._thread)

    async def start_server(self) -> None:
        """Listen."""
        await self.server.start()
        await self.server.listen(self.app.conf.web_bind, self.app.conf.web_port)
        if self._shared_port != self.app.conf.web_port:
            await self.server.share(self.app.conf.web_bind, self._shared_port)

    async def drain(self) -> None:
        """Refuse new requests, and wait for requests in flight."""
        await self.server.drain()

    async def stop_server(self) -> None:
        """Close all ports and connections."""
        await self.server.stop()


async def _expect_nothing(_request: Request) -> None:
    """Ignore an Expect header: the gate has answered it."""
