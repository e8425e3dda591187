"""The options of `harness bench http`."""

import sys

import click

from tests.harness.bench.http.accounts import Accounts
from tests.harness.bench.http.report import table_of
from tests.harness.bench.http.run import HttpBench
from tests.harness.bench.stacks import bench_stack
from tests.harness.console import print_report, progress_console


@click.command("http")
@click.option("--workers", type=click.IntRange(1, 64), default=1, show_default=True)
@click.option("--partitions", type=click.IntRange(1, 1024), default=8, show_default=True)
@click.option("--wallets", type=click.IntRange(2), default=1_000, show_default=True)
@click.option("--connections", type=click.IntRange(1), default=64, show_default=True)
@click.option("--seconds", type=click.IntRange(1), default=15, show_default=True, help="Of each round.")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
@click.option(
    "--warm-up-s", type=click.IntRange(1), default=15, show_default=True, help="Load before the rounds."
)
@click.option("--scale", type=click.IntRange(1), default=50, show_default=True, help="Of pgbench.")
@click.option("--seed", default=1, show_default=True)
@click.option("--profile", is_flag=True, help="Then show where a worker's time goes in one more round.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def http_command(
    workers: int,
    partitions: int,
    wallets: int,
    connections: int,
    seconds: int,
    rounds: int,
    warm_up_s: int,
    scale: int,
    seed: int,
    profile: bool,
    as_json: bool,
) -> None:
    """Transfers answered per second over HTTP with both legs applied, one a request.

    Each has an idempotency key of its own and goes between two wallets chosen at random. Then wallets are read from one
    worker. Then, on the same PostgreSQL server, pgbench runs its standard transaction. Balances and a sample of the
    transactions are checked; the exit code is 1 where any is wrong.
    """
    console = progress_console()
    with bench_stack(workers, partitions, profile=profile) as stack:
        accounts = Accounts(stack, wallets, seed)
        bench = HttpBench(stack, accounts, connections, seconds, warm_up_s, seed, console.print)
        report = bench.report(rounds, scale)
        if profile:
            bench.profile(console)
    print_report(report, table_of(report), as_json=as_json)
    sys.exit(1 if report.audit.violations else 0)
