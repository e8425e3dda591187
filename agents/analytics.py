"""The analytics projection: counts ledger entries in PostgreSQL, with copies in RocksDB and Redis."""

from functools import partial

from mercuria.agents.mirrors import Mirrors
from mercuria.agents.staging import Staged
from mercuria.app import app, authenticity, counters, redis, settings
from mercuria.kafka.cloudevents import read_numbered
from mercuria.projections.analytics.cache import AnalyticsCache
from mercuria.projections.analytics.queries import counters_of
from mercuria.projections.analytics.rows import AnalyticsRows
from mercuria.projections.analytics.store import AnalyticsTables
from mercuria.topics import LEDGER_EVENTS

PACE_S = 0.25
"""No client waits for analytics, and entries that are counted in one transaction update each row once."""
MAX_ENTRIES = 20_000

tables = AnalyticsTables(settings.database)


def _take_written() -> None:
    mirrors.take(tables.take_written())


def _counted() -> dict[int, int]:
    return {number: place.read for number, place in analytics.here().items()}


mirrors = Mirrors(
    counters, AnalyticsCache(redis, authenticity), partial(counters_of, settings.database), _counted
)

analytics = Staged(
    LEDGER_EVENTS,
    tables,
    AnalyticsRows,
    read_numbered,
    says="figures of the ledger",
    pace_s=PACE_S,
    max_rows=MAX_ENTRIES,
    on_written=_take_written,
)

app.task(mirrors.run)
