"""The HTTP server of a worker: aiohttp's, with bounds on what clients can take, and one shape of errors and headers.

A request meets the parts in this order: `connections` (its socket and its headers), `gate` (its body, how much is
being done already), the view, and the gate again on its way back. `server` starts and stops them; `web` is the server
as Faust wants it.
"""

from mercuria.http.gate import REQUEST_ID, SPAN, USER_ID, respond
from mercuria.http.limits import Limits
from mercuria.http.server import Server
from mercuria.http.web import Web

__all__ = ["REQUEST_ID", "SPAN", "USER_ID", "Limits", "Server", "Web", "respond"]
