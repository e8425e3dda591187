"""Prometheus metrics of this worker, on its own port.

The worker's own values are available at once. Other servers are queried at most every two seconds, with a
short timeout. If a server does not answer, its metrics have no sample rather than an old one; the other
metrics are still exposed.
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from aiohttp.web import Request, Response
from aiokafka.errors import KafkaError
from mode.utils.logging import get_logger
from prometheus_client import REGISTRY
from prometheus_client.exposition import choose_encoder

from mercuria.http.gate import respond
from mercuria.http.problems import Problem
from mercuria.observability import metrics
from mercuria.postgres.database import DatabaseUnavailable
from mercuria.projections.operations import InFlight
from mercuria.web.context import Context
from mercuria.web.health import READY, may_see_inside, own_parts, postgresql
from mercuria.web.health_monitor import unread
from mercuria.web.log_progress import KAFKA_ANSWERS_WITHIN_S
from mercuria.web.page_view import Pages
from mercuria.web.read_routing import soon

FRESH_S = 2.0
"""The minimum time between two queries to other servers."""
WAIT_S = 0.4
"""How long a scrape waits for other servers. A later result serves the next scrape."""
KEPT_S = 30.0
"""How long a result is used while the next query runs.

If a server proves unavailable, its result is dropped.
"""

UNAVAILABLE = (DatabaseUnavailable, KafkaError, TimeoutError)

log = get_logger(__name__)

T = TypeVar("T")


def pages(context: Context) -> Pages:
    """Return the page of one app, by its path."""
    return {"/metrics": Scraper(context).scrape}


class Scraper:
    """Answers scrapes of one worker."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._lags = Reading(self._read_lags)
        self._in_flight = Reading(self._read_in_flight)
        self._database_state = Reading(self._read_database_state)
        self._seen_in_flight: dict[str, InFlight | None] = {}

    async def scrape(self, request: Request) -> Response:
        """Return the metrics of this worker, as text that Prometheus reads, or as OpenMetrics where that is asked for.

        The port that workers share shows nothing, since a client there does not choose the worker. Where a worker has
        one port for all, its metrics are for the networks of `MERCURIA_METRICS_NETWORKS`.
        """
        if not self._is_on_own_port(request) or not may_see_inside(self._context, request):
            return respond(request, Problem("not_found"))
        await self._refresh()
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return Response(body=encode(REGISTRY), headers={"Content-Type": content_type})

    def _is_on_own_port(self, request: Request) -> bool:
        # None: the client has disconnected.
        transport = request.transport
        own_port = self._context.settings.worker_port
        return transport is not None and transport.get_extra_info("sockname")[1] == own_port

    async def _refresh(self) -> None:
        """Set the metrics that other servers provide; without an answer, they have no sample."""
        lags, in_flight, database_state = await asyncio.gather(
            self._lags.latest(), self._in_flight.latest(), self._database_state.latest()
        )
        metrics.stage_lag_records.clear()
        for (stage, partition), lag in (lags or {}).items():
            metrics.stage_lag_records.labels(stage, partition).set(lag)
        metrics.in_flight_minor_units.clear()
        metrics.in_flight_oldest_s.clear()
        for currency, moving in (in_flight or {}).items():
            metrics.in_flight_minor_units.labels(currency).set(moving.volume if moving else 0)
            since_s = moving.oldest_at.timestamp() if moving else math.inf
            metrics.in_flight_oldest_s.labels(currency).set(max(time.time() - since_s, 0))
        parts = own_parts(self._context) | ({"postgresql": database_state} if database_state else {})
        metrics.ready.clear()
        for part, state in parts.items():
            metrics.ready.labels(part).set(state == READY)

    async def _read_lags(self) -> dict[tuple[str, int], int]:
        """Return the consumer lag of this worker in records, by stage and partition."""
        log_ends = self._context.app.log_ends
        async with asyncio.timeout(KAFKA_ANSWERS_WITHIN_S):
            return {
                (each.stage, each.partition): await log_ends.left(
                    each.topic, each.partition, each.done, each.end
                )
                async for each in unread(self._context.app)
            }

    async def _read_in_flight(self) -> dict[str, InFlight | None]:
        """Return the money in flight by currency; None for a currency that no longer has any."""
        async with soon():
            rows = await self._context.operations.in_flight()
        seen = self._seen_in_flight
        seen.update(dict.fromkeys(seen) | {row.currency: row for row in rows})
        return seen

    async def _read_database_state(self) -> str:
        return await postgresql(self._context)


class Reading(Generic[T]):
    """A recent result of a query to another server.

    Args:
        query: sends the query; raises one of `UNAVAILABLE` if the server does not answer.
    """

    def __init__(self, query: Callable[[], Awaitable[T]]) -> None:
        self._query = query
        self._running: asyncio.Task[None] | None = None
        self._began_s = -FRESH_S
        self._result: T | None = None
        self._result_s = 0.0

    async def latest(self) -> T | None:
        """Return the last result; None if it is too old, or if the server was unavailable."""
        if self._running is None and time.monotonic() - self._began_s >= FRESH_S:
            self._began_s = time.monotonic()
            self._running = asyncio.create_task(self._run())
        if self._running is not None:
            await asyncio.wait([self._running], timeout=WAIT_S)
        return self._result if time.monotonic() - self._result_s < KEPT_S else None

    async def _run(self) -> None:
        try:
            self._result, self._result_s = await self._query(), time.monotonic()
        except UNAVAILABLE:
            self._result = None
        except Exception:
            self._result = None
            log.exception("A metric cannot be read.")
        finally:
            self._running = None
