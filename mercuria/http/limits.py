"""Limits: the resources of a worker that one client, and all clients together, may use."""

import resource
from dataclasses import dataclass

FILES_OF_OTHERS = 512
"""Open files reserved for everything but HTTP connections: tables, Kafka, PostgreSQL, Redis."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one worker's HTTP server."""

    body_bytes: int = 64 * 1024
    """The maximum size of a request's body."""
    line_bytes: int = 4 * 1024
    """The maximum length of a request's URL."""
    field_bytes: int = 8 * 1024
    """The maximum size of a header, including its name."""
    fields: int = 64
    """The maximum number of headers of a request."""
    connections: int = 2000
    """The maximum number of open connections. Further ones receive a refusal and are closed."""
    in_flight: int = 1000
    """The maximum number of requests in flight. Further ones are refused."""
    headers_timeout_s: float = 10
    """The time from a connection's start, or a later request's first byte, to the end of the headers."""
    body_timeout_s: float = 10
    """The time from the end of the headers to the end of the body."""
    answer_timeout_s: float = 30
    """How long a client may take to read an answer."""
    idle_timeout_s: float = 75
    """How long a connection may be open without a request."""
    lingering_s: float = 2
    """How long the rest of a refused request is read and discarded, so that the client sees the response."""
    leaving_s: float = 0.25
    """How long a stopping worker still answers, so that clients get a response and reconnect elsewhere."""
    drain_timeout_s: float = 10
    """How long requests in flight may take when the worker stops."""


def affordable(connections: int) -> int:
    """Raise the process's limit of open files to its maximum; return how many connections fit into it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if most == resource.RLIM_INFINITY:
        return connections
    return max(1, min(connections, most - FILES_OF_OTHERS))
