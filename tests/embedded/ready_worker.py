"""The smallest worker that the stack can start: it says that it is ready, and ends on SIGTERM.

With WORKER_ENDS=N in its environment it says so and ends with exit code N instead.
"""

import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server(ThreadingHTTPServer):
    """Shares its port, as all workers of one machine do."""

    allow_reuse_port = True


class Ready(BaseHTTPRequestHandler):
    """Answers every GET with 200."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"ready": true}')

    def log_message(self, *_: object) -> None:
        pass


signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
ends = os.environ.get("WORKER_ENDS")
if ends:
    print("This worker was told to end.", flush=True)
    sys.exit(int(ends))
host = os.environ.get("MERCURIA_HTTP_HOST") or "127.0.0.1"
Server((host, int(os.environ["MERCURIA_WORKER_PORT"])), Ready).serve_forever()
