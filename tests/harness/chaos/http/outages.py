"""Outages: each is faults, and the expectation of what clients see meanwhile."""

from collections.abc import Callable
from typing import NamedTuple

from tests.harness.chaos.http.expectations import (
    Expectation,
    without_postgres,
    without_redis,
    without_worker,
)
from tests.harness.chaos.http.faults import kill_postgres, kill_redis, stop, stop_worker
from tests.harness.chaos.http.report import Outcome
from tests.harness.chaos.http.run import Faults, HttpRun


class Outage(NamedTuple):
    """Faults, and what an outcome has to be when they happened."""

    faults: Faults
    expectation: Expectation


OUTAGES: dict[tuple[str, str], Callable[[float], Outage]] = {
    ("stop", "redis"): lambda for_s: Outage(stop(lambda stack: stack.redis, for_s), without_redis(for_s)),
    ("kill", "redis"): lambda for_s: Outage(kill_redis(for_s), without_redis(for_s)),
    ("stop", "postgres"): lambda for_s: Outage(stop(lambda stack: stack.postgres, for_s), without_postgres),
    ("kill", "postgres"): lambda for_s: Outage(kill_postgres(for_s), without_postgres),
    ("stop", "worker"): lambda for_s: Outage(stop_worker(for_s), without_worker),
}
"""By the kind of fault and the part; the argument is how long the part is away, in seconds."""


async def run_outage(run: HttpRun, outage: Outage) -> Outcome:
    """Make a run with an outage, and add to its violations what clients should not have seen."""
    outcome = await run.run(outage.faults)
    unexpected = outage.expectation(outcome)
    outcome.violations += unexpected
    outcome.violation_count += len(unexpected)
    return outcome
