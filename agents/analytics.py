"""The analytics projection: counts ledger entries in PostgreSQL, with copies in RocksDB and Redis."""

from functools import partial

from mercuria.agents.mirrors import Mirrors
from mercuria.agents.projection_agent import ProjectionAgent
from mercuria.kafka.cloudevents import read_numbered
from mercuria.projections.analytics.cache import AnalyticsCache
from mercuria.projections.analytics.queries import counters_of
from mercuria.projections.analytics.rows import AnalyticsRows
from mercuria.projections.analytics.store import AnalyticsTables
from mercuria.projections.projection import Projection
from mercuria.tables.registration import Tables
from mercuria.worker import App

THROTTLE_S = 0.25
"""No client waits for analytics, and entries that are counted in one transaction update each row once."""
MAX_ENTRIES = 20_000


def register(app: App, tables: Tables) -> None:
    """Add the projection and the copies of its counters to an app."""
    counted = AnalyticsTables(app.settings.database)

    def positions() -> dict[int, int]:
        return {number: checkpoint.read for number, checkpoint in agent.here().items()}

    mirrors = Mirrors(
        tables.counters,
        AnalyticsCache(app.redis, app.authenticity),
        partial(counters_of, app.settings.database),
        positions,
    )
    projection = Projection(
        read=read_numbered,
        rows=AnalyticsRows,
        tables=counted,
        label="figures of the ledger",
        throttle_s=THROTTLE_S,
        max_rows=MAX_ENTRIES,
        on_written=lambda: mirrors.take(counted.take_written()),
    )
    agent = ProjectionAgent(app, projection)
    app.task(mirrors.run)
