"""Header propagation: a record passes the headers of its request and trace context on to records it causes.

    request-id    the id of the HTTP request that a command came with
    traceparent   the span that the record comes from (https://www.w3.org/TR/trace-context/)
    tracestate    the vendor data of the trace context

The headers do not influence decisions. Propagated headers depend on the record alone, so that a batch that is
decided again yields the same headers: the span id of a record's processing is derived from the record's
position.
"""

import re
from collections.abc import Iterable, Sequence
from hashlib import blake2b

Trace = list[tuple[str, bytes]]
"""The headers that identify the request and the trace of a record."""
NO_TRACE: Trace = []
"""The headers of a record without a request and a trace: one shared list, which is never changed."""

REQUEST_ID = "request-id"
TRACEPARENT = "traceparent"
TRACESTATE = "tracestate"

_is_request_id = re.compile(rb"[A-Za-z0-9._-]{1,64}").fullmatch
_WELL_FORMED = {
    REQUEST_ID: _is_request_id,
    TRACEPARENT: re.compile(
        rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
    ).fullmatch,
    TRACESTATE: re.compile(rb"[\x20-\x7e]{1,512}").fullmatch,
}
_SPAN = slice(36, 52)


def propagated(
    headers: Iterable[tuple[str, bytes | None]], reader: str, partition: int, offset: int
) -> Trace:
    """Return the headers for records that `reader` creates from the record at an offset; drop others."""
    own = [header for header in headers if header[0] in _WELL_FORMED]
    if not own:
        return NO_TRACE
    trace = well_formed(own)
    parent = trace.get(TRACEPARENT)
    if parent is None:
        trace.pop(TRACESTATE, None)
    elif is_sampled(parent):
        trace[TRACEPARENT] = parent[:36] + span_id(parent, reader, partition, offset) + parent[52:]
    return list(trace.items()) or NO_TRACE


def well_formed(headers: Iterable[tuple[str, bytes | None]]) -> dict[str, bytes]:
    """Return the well-formed headers of a request and a trace. A header that occurs twice is dropped."""
    found: dict[str, bytes | None] = {}
    for name, value in headers:
        is_well_formed = _WELL_FORMED.get(name)
        if is_well_formed is not None:
            is_good = value is not None and name not in found and is_well_formed(value)
            found[name] = value if is_good else None
    return {name: value for name, value in found.items() if value is not None}


def is_sampled(traceparent: bytes) -> bool:
    """Return whether the spans of a trace are recorded."""
    return int(traceparent[53:55], 16) & 1 == 1


def span_id(parent: bytes, reader: str, partition: int, offset: int) -> bytes:
    """Return the id of the span in which `reader` processes the record at an offset, a child of `parent`."""
    place = b"%b %b-%d-%d" % (parent, reader.encode(), partition, offset)
    return blake2b(place, digest_size=8).hexdigest().encode()


def request_id_header(request_id: str) -> tuple[str, bytes]:
    """Return the header of a command that belongs to a request."""
    return REQUEST_ID, request_id.encode()


def request_id_in(headers: Sequence[tuple[str, bytes | None]]) -> str | None:
    """Return the id of the request that a record belongs to, or None."""
    value = well_formed(headers).get(REQUEST_ID)
    return value.decode("ascii") if value is not None else None
