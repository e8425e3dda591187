"""`harness bench pipeline`: how many transfers a second go through all stages, until PostgreSQL has their entries."""

import asyncio
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from typing import Any

import click
import psutil
import psycopg2
from rich.table import Table

from mercuria.embedded.stack import Stack
from mercuria.kafka.client import CommandProducer, command_producer
from mercuria.topics import TOPICS
from tests.harness.bench.measuring import STALLED_AFTER_S, bytes_on_disk, family_rss_bytes
from tests.harness.bench.pgbench import CLIENTS, pgbench_database, pgbench_tps
from tests.harness.bench.stacks import bench_stack, cpu_s_by_part, pid_of, profiling
from tests.harness.bench.workload import Workload
from tests.harness.console import Echo, print_report, progress_console

WINDOW = 12_000
"""So many transfers are under way at most: enough that no stage waits for work, and few enough to end soon."""
SENT_AT_ONCE = 1_000
LOOK_EVERY_S = 0.1
PGBENCH_S = 15
AFTERWARDS_S = 5
PROGRESS_EVERY_S = 30
TABLES = ("wallet_events", "transactions", "ledger_entries", "wallets")


@dataclass(frozen=True, slots=True)
class Run:
    """One measurement. `lag` are transfers that were sent and had no entries yet when it ended."""

    entries_before: int
    seconds: float
    transfers: int
    transfers_per_s: float
    rows_per_s: dict[str, float]
    lag: int
    caught_up_after_s: float
    cpu_s: dict[str, float]
    memory_mib: dict[str, float]
    postgres_bytes_per_transfer: float
    kafka_bytes_per_transfer: float


@dataclass(frozen=True, slots=True)
class Report:
    """The figures of `harness bench pipeline`."""

    python: str
    cores: int
    workers: int
    partitions: int
    wallets: int
    seed: int
    runs: list[Run]
    pgbench_tps: float
    ratio: float
    growth: float


@click.command("pipeline")
@click.option("--workers", type=click.IntRange(1, 64), default=1, show_default=True)
@click.option("--partitions", type=click.IntRange(1, 1024), default=8, show_default=True)
@click.option("--wallets", type=click.IntRange(2), default=1_000, show_default=True)
@click.option("--seconds", type=click.IntRange(5), default=60, show_default=True, help="Of each run.")
@click.option("--warm-up-s", type=click.IntRange(1), default=10, show_default=True)
@click.option(
    "--fill", default=0, help="Measure again when the ledger has so many entries, filled the same way."
)
@click.option("--scale", type=click.IntRange(1), default=50, show_default=True, help="Of pgbench.")
@click.option("--seed", default=1, show_default=True)
@click.option("--profile", is_flag=True, help="Then show where a worker's time goes.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def pipeline_command(
    workers: int,
    partitions: int,
    wallets: int,
    seconds: int,
    warm_up_s: int,
    fill: int,
    scale: int,
    seed: int,
    profile: bool,
    as_json: bool,
) -> None:
    """Transfers per second through all stages, from Kafka until PostgreSQL has both entries of each.

    A producer keeps some thousand transfers under way. Then, on the same PostgreSQL server, pgbench runs its standard
    transaction. The exit code is 1 where entries and transfers do not agree in the end.
    """
    console = progress_console()
    with bench_stack(workers, partitions, profile=profile) as stack:
        measured = _Bench(stack, Workload(wallets, seed), console.print)
        afterwards = profiling(stack, console) if profile else nullcontext()
        runs = asyncio.run(measured.runs(warm_up_s, seconds, fill, afterwards))
        tps = measured.pgbench(scale)
    report = Report(
        python=".".join(map(str, sys.version_info[:3])),
        cores=psutil.cpu_count() or 0,
        workers=workers,
        partitions=partitions,
        wallets=wallets,
        seed=seed,
        runs=runs,
        pgbench_tps=tps,
        ratio=runs[0].transfers_per_s / tps,
        growth=runs[-1].transfers_per_s / runs[0].transfers_per_s,
    )
    print_report(report, _table(report), as_json=as_json)


class Feed:
    """Keeps transfers under way, and knows how many have their entries.

    Args:
        database: a connection of psycopg2's that commits by itself.
    """

    def __init__(self, stack: Stack, workload: Workload, producer: CommandProducer, database: Any) -> None:
        self.sent = 0
        self._stack = stack
        self._workload = workload
        self._producer = producer
        self._database = database
        self._opened = 0

    async def open(self) -> None:
        """Open and fund the wallets."""
        await self._producer.send(list(self._workload.opening()))
        self._opened = len(self._workload.wallet_ids)
        await self.caught_up()

    async def keep_going(
        self, is_over: Callable[[float], bool], on_look: Callable[[], object] = bool
    ) -> None:
        """Keep transfers under way until `is_over`, which gets the moment when this began.

        Args:
            on_look: is called each time when the entries have been counted.
        """
        began_s = moved_s = time.monotonic()
        done = self.entered()
        while not is_over(began_s):
            now = self.entered()
            on_look()
            if now != done:
                done, moved_s = now, time.monotonic()
            elif time.monotonic() - moved_s > STALLED_AFTER_S:
                raise click.ClickException(
                    self._stack.workers[0].with_log(f"No entries came for {STALLED_AFTER_S} s.")
                )
            for _ in range((WINDOW - (self.sent - done)) // SENT_AT_ONCE):
                await self._producer.send(list(self._workload.transfers(SENT_AT_ONCE)))
                self.sent += SENT_AT_ONCE
            await asyncio.sleep(LOOK_EVERY_S)

    async def caught_up(self) -> float:
        """Wait until every transfer has its entries; return after how many seconds."""
        began_s = time.monotonic()
        while self.entered() < self.sent:
            if time.monotonic() - began_s > STALLED_AFTER_S:
                raise click.ClickException(
                    f"{self.sent} transfers were sent, and {self.entered()} have their entries."
                )
            await asyncio.sleep(LOOK_EVERY_S)
        return time.monotonic() - began_s

    def entered(self) -> int:
        """Return how many transfers have their entries."""
        return self.entries() // 2 - self._opened

    def entries(self) -> int:
        """Return how many entries the ledger has."""
        statement = "SELECT COALESCE(sum(told), 0) FROM positions WHERE stage = 'ledger'"
        return int(one(self._database, statement))


class _Bench:
    def __init__(self, stack: Stack, workload: Workload, echo: Echo) -> None:
        self._stack = stack
        self._workload = workload
        self._echo = echo

    async def runs(
        self, warm_up_s: int, seconds: int, fill: int, afterwards: AbstractContextManager[None]
    ) -> list[Run]:
        """Measure once, and once more when the ledger has `fill` entries; then keep up the load in `afterwards`."""
        servers, partitions = self._stack.env["MERCURIA_KAFKA"], int(self._stack.env["MERCURIA_PARTITIONS"])
        with closing(psycopg2.connect(self._stack.env["MERCURIA_DATABASE"])) as database:
            database.autocommit = True
            async with command_producer(servers, partitions) as producer:
                feed = Feed(self._stack, self._workload, producer, database)
                await feed.open()
                await feed.keep_going(lambda began_s: time.monotonic() - began_s > warm_up_s)
                measured = [await self._run(feed, database, seconds)]
                if fill:
                    progress = _Progress(feed, self._echo)
                    await feed.keep_going(lambda _: feed.entries() >= fill, progress)
                    measured.append(await self._run(feed, database, seconds))
                with afterwards:
                    await feed.keep_going(lambda began_s: time.monotonic() - began_s > AFTERWARDS_S)
        return measured

    def pgbench(self, scale: int) -> float:
        """Run PostgreSQL's own benchmark on the same server."""
        self._echo("Filling the tables of pgbench.")
        with pgbench_database(self._stack.env["MERCURIA_DATABASE_OWNER"], scale) as dsn:
            tps = pgbench_tps(dsn, PGBENCH_S)
        self._echo(f"pgbench: {tps:,.0f} transactions/s.")
        return tps

    async def _run(self, feed: Feed, database: Any, seconds: int) -> Run:
        await feed.caught_up()
        kafka = self._stack.directory.path / "kafka"
        topics = [topic.name for topic in TOPICS]
        entries, rows, size = feed.entries(), _rows(database), _size_bytes(database)
        written, cpu_s = bytes_on_disk(kafka, topics), cpu_s_by_part(self._stack)
        began_s = time.monotonic()
        await feed.keep_going(lambda began_s: time.monotonic() - began_s > seconds)
        took_s = time.monotonic() - began_s
        transfers = (feed.entries() - entries) // 2
        used_s = {name: each - cpu_s[name] for name, each in cpu_s_by_part(self._stack).items()}
        lag = feed.sent - feed.entered()
        caught_up_after_s = await feed.caught_up()
        all_transfers = (feed.entries() - entries) // 2
        run = Run(
            entries_before=entries,
            seconds=took_s,
            transfers=transfers,
            transfers_per_s=transfers / took_s,
            rows_per_s={
                table: (count - rows[table]) / all_transfers * transfers / took_s
                for table, count in _rows(database).items()
            },
            lag=lag,
            caught_up_after_s=caught_up_after_s,
            cpu_s=used_s,
            memory_mib={part.name: family_rss_bytes(pid_of(part)) / 2**20 for part in self._stack.parts},
            postgres_bytes_per_transfer=(_size_bytes(database) - size) / all_transfers,
            kafka_bytes_per_transfer=(bytes_on_disk(kafka, topics) - written) / all_transfers,
        )
        self._echo(
            f"{run.transfers_per_s:,.0f} transfers/s from {entries:,} entries on; {lag:,} under way at the end."
        )
        return run


class _Progress:
    """Prints now and then how far the ledger is filled."""

    def __init__(self, feed: Feed, echo: Echo) -> None:
        self._feed = feed
        self._echo = echo
        self._echoed_s = time.monotonic()

    def __call__(self) -> None:
        if time.monotonic() - self._echoed_s > PROGRESS_EVERY_S:
            self._echoed_s = time.monotonic()
            self._echo(f"{self._feed.entries():,} entries.")


def one(database: Any, statement: str) -> Any:
    """Run a statement, and return its only value."""
    with database.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchone()[0]


def _rows(database: Any) -> dict[str, int]:
    return {table: int(one(database, f"SELECT count(*) FROM {table}")) for table in TABLES}


def _size_bytes(database: Any) -> int:
    return int(one(database, "SELECT pg_database_size(current_database())"))


def _table(report: Report) -> Table:
    table = Table("", *(f"from {run.entries_before:,} entries" for run in report.runs))
    figures: list[tuple[str, Callable[[Run], str]]] = [
        ("transfers/s", lambda run: f"{run.transfers_per_s:,.0f}"),
        ("under way at the end", lambda run: f"{run.lag:,}"),
        ("all entered after, s", lambda run: f"{run.caught_up_after_s:.1f}"),
        *((f"rows/s in {name}", lambda run, name=name: f"{run.rows_per_s[name]:,.0f}") for name in TABLES),
        *(
            (f"processor time of {name}, s", lambda run, name=name: f"{run.cpu_s[name]:.1f}")
            for name in report.runs[0].cpu_s
        ),
        ("PostgreSQL's bytes a transfer", lambda run: f"{run.postgres_bytes_per_transfer:,.0f}"),
        ("Kafka's bytes a transfer", lambda run: f"{run.kafka_bytes_per_transfer:,.0f}"),
    ]
    for name, figure in figures:
        table.add_row(name, *map(figure, report.runs))
    table.add_section()
    table.add_row("pgbench, transactions/s", f"{report.pgbench_tps:,.0f}")
    table.add_row("ratio", f"{report.ratio:.2f}")
    if len(report.runs) > 1:
        table.add_row("last run against the first", f"{report.growth:.2f}")
    table.caption = (
        f"Workers: {report.workers}; partitions: {report.partitions}; wallets: {report.wallets:,}; runs of"
        f" {report.runs[0].seconds:.0f} s. Python {report.python}, {report.cores} cores."
        f" pgbench: {CLIENTS} clients, prepared."
    )
    return table
