"""The HTTP server of a worker: aiohttp's, with bounds on what clients can take, and one shape of errors and headers.

A request meets the parts in this order: `connections` (its socket and its headers), `gate` (its body, how much is
being done already), the view, and the gate again on its way back. `server` starts and stops them; `web` is the server
as Faust wants it.
"""
