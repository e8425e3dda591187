"""Readiness of the worker that answers, for operators: what probes see at its own port, behind any proxy."""

from msgspec import Struct

from mercuria.timestamps import rfc3339
from mercuria.web.endpoint import OPERATOR, Answer, Call, endpoint
from mercuria.web.health import own_parts, postgresql, unready_reasons
from mercuria.web.representations import Time
from mercuria.web.timestamps import now_ms


class ReadinessBody(Struct, frozen=True):
    """Whether the worker decides commands, else the reasons; and its parts: each is `ready`, or what is wrong."""

    at: Time
    ready: bool
    reasons: list[str]
    parts: dict[str, str]


@endpoint("GET", "/api/v1/operations/readiness", access=OPERATOR, answers={200: ReadinessBody})
async def get_readiness(call: Call) -> Answer:
    """Return whether the worker that answers is ready, and how its parts are. It is 200 also where it is not ready."""
    reasons = unready_reasons(call.context)
    parts = own_parts(call.context) | {"postgresql": await postgresql(call.context)}
    return Answer(ReadinessBody(rfc3339(now_ms()), not reasons, reasons, parts))
