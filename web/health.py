"""Health checks: whether a worker is alive, and whether it is ready, with the reasons if it is not."""

import time
from functools import partial
from ipaddress import ip_network
from typing import Any, cast

import msgspec
from aiohttp.web import Request, Response
from faust.tables.manager import TableManager

from mercuria.http.client_address import NOWHERE, is_inside
from mercuria.http.web import Web
from mercuria.web.callers import is_operator
from mercuria.web.context import Context
from mercuria.web.health_monitor import HealthMonitor
from mercuria.web.page_view import Pages
from mercuria.worker import App

READY = "ready"
PROXY_HEADERS = ("Forwarded", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-Ip", "Via")
"""The headers that proxies add to forwarded requests."""


def pages(context: Context) -> Pages:
    """Return the health checks of one app, by path."""
    return {"/health/live": live, "/health/ready": partial(ready, context)}


async def live(_request: Request) -> Response:
    """Answer 200 as long as the event loop turns."""
    return _json({"status": "live"})


async def ready(context: Context, request: Request) -> Response:
    """Answer 200 when the worker decides commands, else 503 with the reasons.

    Without PostgreSQL it is ready, and degraded: money moves, and what only PostgreSQL knows has its own answer.
    Clients from outside see `ready` and `status` alone.
    """
    reasons = unready_reasons(context)
    parts = own_parts(context) | {"postgresql": await postgresql(context)}
    is_degraded = any(state != READY for state in parts.values())
    answer: dict[str, Any] = {
        "ready": not reasons,
        "status": "unready" if reasons else "degraded" if is_degraded else READY,
    }
    if may_see_inside(context, request):
        answer |= {"reasons": reasons, "parts": parts, "lag_records": context.health_monitor.lag_records}
    return _json(answer, status=503 if reasons else 200)


def may_see_inside(context: Context, request: Request) -> bool:
    """Return whether a client may see a worker's metrics and the reasons why it is not ready.

    A worker's own port, beside the port for clients, is reachable from inside only (docs/operations.md). On a
    shared port, access is limited to clients in `MERCURIA_METRICS_NETWORKS`, operators, and the machine
    itself.
    """
    transport = request.transport
    if transport is None:
        # The client has disconnected.
        return False
    settings = context.settings
    here = transport.get_extra_info("sockname")
    if here[1] == settings.worker_port != settings.http_port:
        return True
    if is_operator(context.tokens, request):
        return True
    inside = (*settings.metrics_networks, ip_network(here[0].partition("%")[0]))
    return is_inside(request.remote, _forwarded(request), settings.trusted_proxies, inside)


def _forwarded(request: Request) -> list[str]:
    """Return the addresses for which a request was forwarded.

    A proxy that uses another header is not recognised.
    """
    addresses: list[str] = request.headers.getall("X-Forwarded-For", [])
    if not addresses and any(name in request.headers for name in PROXY_HEADERS):
        return [NOWHERE]
    return addresses


def own_parts(context: Context) -> dict[str, str]:
    """Return the state of the parts that the worker knows itself: `ready`, or what is wrong."""
    app = context.app
    return {
        "wallets": "; ".join(unready_reasons(context)) or READY,
        "tables": READY if has_tables(app) else "being read from the log",
        "locks": _locks(app),
        "kafka": _kafka(context.health_monitor),
        "redis": "away" if app.locks.is_redis_lost else READY,
        "http": "stopping" if cast(Web, app.web).server.leaving else READY,
    } | {stage: waits() or READY for stage, waits in app.stage_waits.items()}


def has_tables(app: App) -> bool:
    """Return whether this worker has the tables of its partitions."""
    return cast(TableManager, app.tables).recovery.completed.is_set() and not app.in_recovery


def _locks(app: App) -> str:
    missing = [number for number in app.own_partitions() if not app.locks.is_held(number)]
    # The leases are acquired once the tables are ready.
    return f"not held for partitions {missing}" if missing and has_tables(app) else READY


def _kafka(monitor: HealthMonitor) -> str:
    if monitor.is_kafka_away(time.monotonic()):
        return "away"
    if monitor.held_up:
        return f"partitions {monitor.held_up} wait for the end of a Kafka transaction"
    return READY


async def postgresql(context: Context) -> str:
    """Return the state of PostgreSQL. Wait for it for at most two seconds."""
    return READY if await context.app.database.ping() else "away"


def unready_reasons(context: Context) -> list[str]:
    """Return why this worker decides no commands at present; nothing if it does."""
    app, monitor = context.app, context.health_monitor
    reasons: list[Any] = []
    if not cast(TableManager, app.tables).recovery.completed.is_set():
        reasons.append("the tables are being read from the log")
    if app.rebalancing:
        reasons.append("partitions are being distributed among the workers")
    if app.in_recovery:
        reasons.append("the tables are catching up with the log")
    if app.locks.is_redis_lost:
        reasons.append("Redis cannot be reached, so it cannot be proved whose the partitions are")
    if monitor.is_kafka_away(time.monotonic()):
        reasons.append("Kafka cannot be reached, so nothing is decided")
    if cast(Web, app.web).server.leaving:
        reasons.append("the worker is stopping")
    return reasons


def _json(value: object, status: int = 200) -> Response:
    content = msgspec.json.encode(value)
    return Response(body=content, status=status, content_type="application/json", charset="utf-8")
