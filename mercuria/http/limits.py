"""What one client may take of a worker, and all clients together."""

import resource
from dataclasses import dataclass

FILES_OF_OTHERS = 512
"""Open files that are left for what is no HTTP connection: tables, Kafka, PostgreSQL, Redis."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of one worker's HTTP server."""

    body_bytes: int = 64 * 1024
    """The largest body of a request."""
    line_bytes: int = 4 * 1024
    """The longest address of a request."""
    field_bytes: int = 8 * 1024
    """The largest header, its name included."""
    fields: int = 64
    """How many headers a request may have."""
    connections: int = 2000
    """Open connections; those beyond are told so, and closed."""
    in_flight: int = 1000
    """Requests being worked on; those beyond are refused."""
    headers_timeout_s: float = 10
    """From the first moment of a connection, or the first byte of a later request, to the end of its headers."""
    body_timeout_s: float = 10
    """From the end of the headers to the end of the body."""
    answer_timeout_s: float = 30
    """How long a client may take to read an answer."""
    idle_timeout_s: float = 75
    """How long a connection may be open without a request."""
    lingering_s: float = 2
    """How long what still comes of a refused request is read and thrown away, so that the client sees the answer."""
    leaving_s: float = 0.25
    """How long a worker that stops still answers, so that connections end with an answer, and are opened elsewhere."""
    drain_timeout_s: float = 10
    """How long requests in flight may take to end when the worker stops."""


def affordable(connections: int) -> int:
    """Raise the process's limit of open files as far as it goes; return how many connections fit into it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if most == resource.RLIM_INFINITY:
        return connections
    return max(1, min(connections, most - FILES_OF_OTHERS))
