"""The report of `harness bench http`, and its table."""

from dataclasses import dataclass

from rich.table import Table

from tests.harness.bench.pgbench import CLIENTS, THREADS


@dataclass(frozen=True, slots=True)
class Round:
    """One round. `answered`, `per_s` and the latencies are of transfers with both legs applied, or of wallets read."""

    answered: int
    per_s: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float
    others: dict[str, int]
    cpu_s: dict[str, float]
    memory_mib: float


@dataclass(frozen=True, slots=True)
class Measured:
    """Some rounds, and the median of each figure."""

    rounds: list[Round]
    median_per_s: float
    p50_ms: float
    p95_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class Pgbench:
    """Transactions that `pgbench` made on the same server, in rounds as long, while the workers were idle."""

    scale: int
    tps: list[float]
    median_tps: float


@dataclass(frozen=True, slots=True)
class Audit:
    """The check of wallets and transactions after all transfers; sums are minor units."""

    transfers: int
    wallets: int
    sum_of_balances: int
    sum_of_deposits: int
    unsure_wallets: int
    transactions: int
    violations: list[str]


@dataclass(frozen=True, slots=True)
class Report:
    """The figures of `harness bench http`."""

    python: str
    cores: int
    workers: int
    partitions: int
    wallets: int
    connections: int
    seconds: int
    warm_up_s: int
    seed: int
    transfers: Measured
    caught_up_after_s: float
    audit: Audit
    reads: Measured
    pgbench: Pgbench
    ratio: float


def format_counts(others: dict[str, int]) -> str:
    """Return how often which other answer came, in one line."""
    return ", ".join(f"{status}: {count:,}" for status, count in sorted(others.items()))


def table_of(report: Report) -> Table:
    """Return the report as a table."""
    table = Table("", "/s", "p50 ms", "p95 ms", "p99 ms", "others", "CPU s", "worker's MiB")
    for kind, measured in (("transfers", report.transfers), ("GET wallet", report.reads)):
        for number, each in enumerate(measured.rounds, start=1):
            table.add_row(
                f"{kind} {number}",
                f"{each.per_s:,.0f}",
                *_milliseconds(each),
                format_counts(each.others) or "none",
                ", ".join(f"{name} {cpu_s:.1f}" for name, cpu_s in each.cpu_s.items()),
                f"{each.memory_mib:.0f}",
            )
        table.add_row("median", f"{measured.median_per_s:,.0f}", *_milliseconds(measured), end_section=True)
    for number, tps in enumerate(report.pgbench.tps, start=1):
        table.add_row(f"pgbench {number}", f"{tps:,.0f}")
    table.add_row("median", f"{report.pgbench.median_tps:,.0f}", end_section=True)
    table.add_row("ratio", f"{report.ratio:.2f}")
    table.caption = _caption(report)
    return table


def _milliseconds(measured: Round | Measured) -> list[str]:
    return [f"{value:.1f}" for value in (measured.p50_ms, measured.p95_ms, measured.p99_ms)]


def _caption(report: Report) -> str:
    audit, pgbench = report.audit, report.pgbench
    return (
        f"Workers: {report.workers}; partitions: {report.partitions}; wallets: {report.wallets:,};"
        f" connections: {report.connections}; rounds of {report.seconds} s after {report.warm_up_s} s of the same load."
        f" Python {report.python}, {report.cores} cores. pgbench: scale {pgbench.scale}, {CLIENTS} clients,"
        f" {THREADS} threads, prepared. Workers were idle {report.caught_up_after_s:.1f} s after the"
        f" transfers. Checked after {audit.transfers:,} of them: {audit.wallets:,} balances and"
        f" {audit.transactions:,} transactions, {len(audit.violations)} wrong."
    )
