"""The HTTP server of a worker: aiohttp's, with limits for clients, and one format of errors and headers.

A request passes the parts in this order: `connections` (its socket and its headers), `gate` (its body, and
the limit of concurrent requests), the view, and the gate again with the response. `server` starts and stops
the parts; `web` adapts the server to Faust.
"""
