"""Metrics: counters and timings of a worker's work, for Prometheus.

Work is counted once for a whole batch, transaction or request. Values that depend on this process alone are
read at each scrape (`set_function`). `web.metrics`, which serves the scrapes, sets the values that come from
Kafka or PostgreSQL.

Counters start at 0 with the process. If partitions have an owner, only the owner reports their metrics, so
that sums over all workers are right. The help text of a metric states it if they are not.
"""

from functools import cache
from typing import get_args

from prometheus_client import Counter, Gauge, Histogram, Info, disable_created_metrics

from mercuria import __version__
from mercuria.domain.commands import AnyCommand
from mercuria.domain.rejections import Code

# They would add a series to each counter and histogram, which only states when the process started.
disable_created_metrics()  # type: ignore[no-untyped-call]

FAST_S = (0.0002, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
"""Buckets for the processor's work."""
SLOW_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Buckets for waits for other servers. A request waits for at most 30 s."""

COMMAND_TYPES: frozenset[str] = frozenset(
    str(struct.__struct_config__.tag) for struct in get_args(AnyCommand)
)
UNKNOWN = "unknown"
"""The label of all unknown types of commands: a producer can write any text as the type."""

UNMATCHED = "unmatched"
"""The label for the route of requests that match no view."""
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER_METHOD = "other"


info = Info("mercuria", "Which version of Mercuria the worker runs.")
info.info({"version": __version__})

# Decisions.

commands = Counter(
    "mercuria_commands",
    "Records of the command topic that this worker has worked through, by what became of them: applied or refused by"
    " their wallet; duplicate of one that was decided before; dead_letter, as no wallet decides it; forwarded, as it"
    " stood in another partition than its wallet's, where it counts again. A transfer counts as transfer at its source"
    " and as credit at its target, and as refund where it comes back. Decided again after a crash, it counts again.",
    ("type", "outcome"),
)
refusals = Counter(
    "mercuria_refusals",
    "Commands that were refused by their wallet, by reason; those with the outcome refused of mercuria_commands_total.",
    ("code",),
)
dead_letters = Counter(
    "mercuria_dead_letters",
    "Records of the command topic that no wallet decides and that went to the dead letters, by reason.",
    ("code",),
)
for _code in Code:
    # The series exist from the start, so that the first count is visible as an increase.
    refusals.labels(_code.value)
    dead_letters.labels(_code.value)

batch_commands = Histogram(
    "mercuria_batch_commands",
    "How many records of the command topic were decided together.",
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000),
)
decide_s = Histogram(
    "mercuria_decide_seconds",
    "How long it took to decide a batch, without waiting for anything.",
    buckets=FAST_S,
)
append_s = Histogram(
    "mercuria_append_seconds",
    "How long Kafka took to acknowledge a batch's events, legs, dead letters and receipts.",
    buckets=SLOW_S,
)
commit_s = Histogram(
    "mercuria_commit_seconds",
    "How long it took until the wallets and the position of a batch were in their changelog and in RocksDB.",
    buckets=SLOW_S,
)
recovery_s = Gauge(
    "mercuria_recovery_seconds",
    "How long it took the last time to bring the tables up to date, from when this worker got its partitions until it"
    " decided commands; 0 before the first time.",
)
lock_held = Gauge(
    "mercuria_lock_held",
    "1 while this worker holds the lock of a partition of the command topic, and so may decide for it; else 0.",
    ("partition",),
)

# Projections.

stage_lag_records = Gauge(
    "mercuria_stage_lag_records",
    "How many records of its topic a stage has not worked through, in each partition that is this worker's. There is no"
    " sample while Kafka does not say where its log ends, or the partition has not been looked at yet.",
    ("stage", "partition"),
)
stage_rows = Counter(
    "mercuria_stage_rows",
    "Rows of events, transactions or entries that a stage has written to PostgreSQL.",
    ("stage",),
)
stage_write_s = Histogram(
    "mercuria_stage_write_seconds",
    "How long a transaction of a stage took in PostgreSQL, from where it began to its commit.",
    ("stage",),
    buckets=SLOW_S,
)
stage_waiting = Gauge(
    "mercuria_stage_waiting",
    "1 while a stage waits for PostgreSQL, which is away; else 0.",
    ("stage",),
)
outbox_events = Gauge(
    "mercuria_outbox_events",
    "Events that a stage has emitted, of this worker's partitions, and that Kafka has not acknowledged.",
    ("stage",),
)
outbox_oldest_s = Gauge(
    "mercuria_outbox_oldest_seconds",
    "For how long this worker has had the oldest of these events; 0 where there is none.",
    ("stage",),
)
ledger_broken_partitions = Gauge(
    "mercuria_ledger_broken_partitions",
    "Partitions of this worker of which nothing is entered into the ledger, because another program has changed it.",
)
in_flight_minor_units = Gauge(
    "mercuria_in_flight_minor_units",
    "The sum of transfers whose money has left one wallet and not reached the other, of all workers: each of them has"
    " the same value. There is no sample while PostgreSQL does not answer, nor before the worker has seen"
    " one in a currency.",
    ("currency",),
)
in_flight_oldest_s = Gauge(
    "mercuria_in_flight_oldest_seconds",
    "How long ago the oldest of these transfers began; 0 where there is none. It has samples where their sum has.",
    ("currency",),
)

# Cache, HTTP, health.

cache_reads = Counter(
    "mercuria_cache_reads",
    "Wallets and transactions that were looked for in Redis, by whether they were there. While Redis does not answer,"
    " nothing counts.",
    ("result",),
)
cache_hits, cache_misses = cache_reads.labels("hit"), cache_reads.labels("miss")
cache_distrusted = Counter(
    "mercuria_cache_distrusted",
    "Values in Redis that were not believed, as no worker of this installation wrote them under their key: someone else"
    " writes to this Redis, or a worker has another leg key.",
)

http_requests = Counter(
    "mercuria_http_requests",
    "Answers to requests. The route is a template, or unmatched where no view got the request: its address or method is"
    " unknown, or it was refused before. Connections for which there is no room are no requests.",
    ("method", "route", "status"),
)
http_request_s = Histogram(
    "mercuria_http_request_seconds",
    "How long requests took from the end of their headers to the beginning of their answer. Waiting for a decision is"
    " part of it, sending the answer is not.",
    ("method", "route"),
    buckets=SLOW_S,
)
http_requests_in_flight = Gauge(
    "mercuria_http_requests_in_flight", "Requests that this worker works on, this one included."
)
ready = Gauge(
    "mercuria_ready",
    "1 while a part of /health/ready is ready, else 0. A worker decides commands while wallets is 1.",
    ("part",),
)


def count_request(method: str, route: str, status: int, took_s: float) -> None:
    """Count the response to a request.

    Args:
        route: the template of the path, or `UNMATCHED`.
    """
    requests, durations = _of_request(method if method in METHODS else OTHER_METHOD, route, status)
    requests.inc()
    durations.observe(took_s)


@cache
def _of_request(method: str, route: str, status: int) -> tuple[Counter, Histogram]:
    return http_requests.labels(method, route, str(status)), http_request_s.labels(method, route)


def count_cache_reads(found: int, asked: int) -> None:
    """Count the hits and misses of one look-up in the cache."""
    if found:
        cache_hits.inc(found)
    if asked > found:
        cache_misses.inc(asked - found)
