"""Prometheus metrics of this worker, on its own port.

The worker's own values are available at once. Other servers are queried at most every two seconds, with a
short timeout. If a server does not answer, its metrics have no sample rather than an old one; the other
metrics are still exposed.
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

from aiohttp.web import Request, Response
from aiokafka.errors import KafkaError
from faust.web import View
from mode.utils.logging import get_logger
from prometheus_client import REGISTRY
from prometheus_client.exposition import choose_encoder

from mercuria.app import app, settings
from mercuria.http.gate import respond
from mercuria.http.problems import Problem
from mercuria.observability import metrics
from mercuria.postgres.database import DatabaseUnavailable
from mercuria.projections.operations import InFlight
from mercuria.web.health import READY, may_see_inside, own_parts, postgresql
from mercuria.web.health_monitor import unread
from mercuria.web.operations import operations
from mercuria.web.reading import KAFKA_ANSWERS_WITHIN_S, soon

FRESH_S = 2.0
"""The minimum time between two queries to other servers."""
WAIT_S = 0.4
"""How long a scrape waits for other servers. A later result serves the next scrape."""
KEPT_S = 30.0
"""How long a result is used while the next query runs.

If a server proves unavailable, its result is dropped.
"""

AWAY = (DatabaseUnavailable, KafkaError, TimeoutError)

log = get_logger(__name__)

T = TypeVar("T")


class Reading(Generic[T]):
    """A recent result of a query to another server.

    Args:
        ask: sends the query; raises one of `AWAY` if the server does not answer.
    """

    def __init__(self, ask: Callable[[], Awaitable[T]]) -> None:
        self._ask = ask
        self._asking: asyncio.Task[None] | None = None
        self._asked_s = -FRESH_S
        self._said: T | None = None
        self._said_s = 0.0

    async def latest(self) -> T | None:
        """Return the last result; None if it is too old, or if the server was unavailable."""
        if self._asking is None and time.monotonic() - self._asked_s >= FRESH_S:
            self._asked_s = time.monotonic()
            self._asking = asyncio.create_task(self._ask_now())
        if self._asking is not None:
            await asyncio.wait([self._asking], timeout=WAIT_S)
        return self._said if time.monotonic() - self._said_s < KEPT_S else None

    async def _ask_now(self) -> None:
        try:
            self._said, self._said_s = await self._ask(), time.monotonic()
        except AWAY:
            self._said = None
        except Exception:
            self._said = None
            log.exception("A metric cannot be read.")
        finally:
            self._asking = None


async def _lags() -> dict[tuple[str, int], int]:
    """Return the consumer lag of this worker in records, by stage and partition."""
    async with asyncio.timeout(KAFKA_ANSWERS_WITHIN_S):
        return {
            (each.stage, each.partition): await app.log_ends.left(
                each.topic, each.partition, each.done, each.end
            )
            async for each in unread()
        }


async def _in_flight() -> dict[str, InFlight | None]:
    """Return the money in flight by currency; None for a currency that no longer has any."""
    async with soon():
        rows = await operations.in_flight()
    _moved.update(dict.fromkeys(_moved) | {row.currency: row for row in rows})
    return _moved


_moved: dict[str, InFlight | None] = {}

lags: Reading[dict[tuple[str, int], int]] = Reading(_lags)
in_flight: Reading[dict[str, InFlight | None]] = Reading(_in_flight)
database_state: Reading[str] = Reading(postgresql)


@app.page("/metrics", name="metrics")
async def scrape(_self: View, request: Any) -> Any:
    """Return the metrics of this worker, as text that Prometheus reads, or as OpenMetrics where that is asked for.

    The port that workers share shows nothing, since a client there does not choose the worker. Where a worker has one
    port for all, its metrics are for the networks of `MERCURIA_METRICS_NETWORKS`.
    """
    if not _is_on_own_port(request) or not may_see_inside(request):
        return respond(request, Problem("not_found"))
    await _refresh()
    encode, content_type = choose_encoder(request.headers.get("Accept", ""))
    return Response(body=encode(REGISTRY), headers={"Content-Type": content_type})


def _is_on_own_port(request: Request) -> bool:
    # None: the client has disconnected.
    transport = request.transport
    return transport is not None and transport.get_extra_info("sockname")[1] == settings.worker_port


async def _refresh() -> None:
    """Set the metrics that other servers provide; without an answer, they have no sample."""
    found_lags, found_in_flight, found_database = await asyncio.gather(
        lags.latest(), in_flight.latest(), database_state.latest()
    )
    metrics.stage_lag_records.clear()
    for (stage, partition), lag in (found_lags or {}).items():
        metrics.stage_lag_records.labels(stage, partition).set(lag)
    metrics.in_flight_minor_units.clear()
    metrics.in_flight_oldest_s.clear()
    for currency, moving in (found_in_flight or {}).items():
        metrics.in_flight_minor_units.labels(currency).set(moving.volume if moving else 0)
        since_s = moving.oldest_at.timestamp() if moving else math.inf
        metrics.in_flight_oldest_s.labels(currency).set(max(time.time() - since_s, 0))
    parts = own_parts() | ({"postgresql": found_database} if found_database else {})
    metrics.ready.clear()
    for part, state in parts.items():
        metrics.ready.labels(part).set(state == READY)
