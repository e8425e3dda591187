"""The HTTP server of a worker: Faust's, which listens on the port that all workers of a machine share as well."""

from typing import Any

from aiohttp.web import TCPSite
from faust.web.drivers import aiohttp as driver


class Web(driver.Web):
    """Faust's web server with a second port.

    The worker's own port tells about this worker alone; the shared one gets its part of the requests from the kernel
    (SO_REUSEPORT), and nothing any more when the worker is gone.
    """

    app: Any

    async def start_server(self) -> None:
        """Listen."""
        await super().start_server()
        shared = self.app.shared_web_port
        if shared != self.app.conf.web_port:
            await TCPSite(self._runner, self.app.conf.web_bind, shared, reuse_port=True).start()
