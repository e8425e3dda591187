"""The report of a soak: its figures, by the minute and at the end, and how they are printed."""

from collections.abc import Iterable, Sequence

from msgspec import Struct

from tests.harness.audit.auditor import Audit
from tests.harness.audit.projections import ProjectionsAudit
from tests.harness.soak.growth import Growth

MIB = 2**20


class Latency(Struct):
    """How long commands waited for their events, in milliseconds."""

    count: int
    p50_ms: float | None
    p99_ms: float | None
    max_ms: float | None


class Grown(Struct):
    """How something grows, in MiB: `last` is the latest sample, `starts` how often a new series began."""

    mib_an_hour: float | None
    last_mib: float
    starts: int
    samples: int


class Minute(Struct):
    """The figures of one minute. `lag` are records, by projection; empty where no worker answered."""

    number: int
    of: float
    commands_per_s: float
    requests_per_s: float
    latency: Latency
    lag: dict[str, int]
    memory_mib: dict[str, float]
    faults: int
    violations: int
    errors: int


class Outcome(Struct):
    """The figures of a soak.

    `latency` is of all commands, `calm` of those that were answered while nothing was broken. What was checked is
    counted in `checks`. Requests that were refused (503) or lost are sent again. `recovery_s` is by fault the longest
    time until everything was answered again. The audits are None where the soak was ended before them.
    """

    seed: int
    load_s: float
    commands: int
    requests: int
    latency: Latency
    calm: Latency
    longest_pause_s: float
    refused: int
    refused_while_broken: int
    faults: dict[str, int]
    recovery_s: dict[str, float]
    checks: dict[str, int]
    lag_at_most: dict[str, int]
    memory: dict[str, Grown]
    disk: dict[str, Grown]
    minutes: list[Minute]
    violation_count: int
    violations: list[str]
    error_count: int
    errors: list[str]
    audit: Audit | None = None
    stages: ProjectionsAudit | None = None

    @property
    def is_clean(self) -> bool:
        """Whether nothing is wrong."""
        return self.violation_count == 0 and self.error_count == 0


def latency_of(latencies_s: Sequence[float]) -> Latency:
    """Return the percentiles of latencies."""
    ordered = sorted(latencies_s)
    if not ordered:
        return Latency(0, None, None, None)
    p50, p99 = (1000 * ordered[int(part * (len(ordered) - 1))] for part in (0.5, 0.99))
    return Latency(len(ordered), p50, p99, 1000 * ordered[-1])


def grown_of(growth: Growth) -> Grown:
    """Return how something grows, in MiB."""
    an_hour = growth.an_hour
    return Grown(
        mib_an_hour=None if an_hour is None else an_hour / MIB,
        last_mib=growth.last / MIB,
        starts=growth.series,
        samples=growth.measured,
    )


def minute_line(minute: Minute) -> str:
    """Return the figures of a minute in one line."""
    lag = ", ".join(f"{stage} {records}" for stage, records in minute.lag.items()) or "unknown"
    memory = ", ".join(f"{name} {mib:.0f}" for name, mib in minute.memory_mib.items())
    return (
        f"{minute.number} of {minute.of:g} min: {minute.commands_per_s:.0f} commands/s,"
        f" {minute.requests_per_s:.0f} requests/s,"
        f" p50 {format_ms(minute.latency.p50_ms)}, p99 {format_ms(minute.latency.p99_ms)}; lag: {lag};"
        f" MiB: {memory}; {minute.faults} faults, {minute.violations} violations, {minute.errors} errors."
    )


def format_ms(ms: float | None) -> str:
    """Return a time in milliseconds for a reader; "-" where there is none."""
    return "-" if ms is None else f"{ms:,.0f} ms"


def figures_of(outcome: Outcome) -> dict[str, object]:
    """Return the figures by their labels."""
    figures: dict[str, object] = {
        "seed": outcome.seed,
        "load": f"{outcome.load_s / 60:.1f} min",
        "commands": f"{outcome.commands:,}",
        "requests": f"{outcome.requests:,}",
        "refused or lost": f"{outcome.refused:,}, {outcome.refused_while_broken:,} of them while something was broken",
        "from command to event": _format_latency(outcome.latency),
        "while nothing was broken": _format_latency(outcome.calm),
        "longest pause in answers": f"{outcome.longest_pause_s:.1f} s",
        "faults": _format_counts(outcome.faults),
        "longest until all was answered again": _join(
            f"{name}: {s:.1f} s" for name, s in outcome.recovery_s.items()
        ),
        "checks": _format_counts(outcome.checks),
        "consumer lag at most, in records": _format_counts(outcome.lag_at_most),
    }
    figures |= {f"memory of {name}": _format_growth(grown) for name, grown in outcome.memory.items()}
    figures |= {f"disk of {name}": _format_growth(grown) for name, grown in outcome.disk.items()}
    if outcome.audit is not None and outcome.stages is not None:
        figures |= {
            "audited commands": f"{outcome.audit.commands:,}",
            "audited events": f"{outcome.audit.events:,}, and {outcome.audit.duplicate_events:,} again",
            "audited entries": f"{outcome.stages.entries:,}",
        }
    else:
        figures["audit"] = "not made"
    return figures | {"violations": outcome.violation_count, "errors": outcome.error_count}


def _format_counts(counts: dict[str, int]) -> str:
    return _join(f"{name}: {count:,}" for name, count in counts.items())


def _join(words: Iterable[str]) -> str:
    return ", ".join(words) or "none"


def _format_latency(latency: Latency) -> str:
    return (
        f"p50 {format_ms(latency.p50_ms)}, p99 {format_ms(latency.p99_ms)}, at most {format_ms(latency.max_ms)}"
        f" ({latency.count:,} commands)"
    )


def _format_growth(grown: Grown) -> str:
    slope = "too short to measure" if grown.mib_an_hour is None else f"{grown.mib_an_hour:+,.1f} MiB an hour"
    starts = f", started {grown.starts} times" if grown.starts > 1 else ""
    return f"{slope}; {grown.last_mib:,.1f} MiB at last{starts}"
