"""The measurement of `harness bench http`: rounds of transfers, reads and pgbench, and the audit in between."""

import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import asdict
from typing import Literal

import click
from rich.console import Console

from mercuria.embedded import processes
from mercuria.embedded.ports import LOOPBACK
from mercuria.embedded.stack import Stack
from mercuria.kafka.client import command_producer
from tests.harness.bench.http import load
from tests.harness.bench.http.accounts import Accounts, Reader
from tests.harness.bench.http.audit import audit_transfers
from tests.harness.bench.http.load import Outcome, Plan
from tests.harness.bench.http.report import Measured, Pgbench, Report, Round, format_counts
from tests.harness.bench.measuring import family_cpu_s, family_rss_bytes
from tests.harness.bench.pgbench import pgbench_database, pgbench_tps
from tests.harness.bench.stacks import cpu_s_by_part, pid_of, profiling
from tests.harness.bench.workload import FUNDS
from tests.harness.console import Echo

IDLE_CORES = 0.15
"""Workers that take less processor time than so many cores are idle."""
IDLE_WITHIN_S = 120

Kind = Literal["transfers", "reads"]


class HttpBench:
    """Measures rounds of transfers and reads, and of pgbench on the same PostgreSQL server."""

    def __init__(
        self,
        stack: Stack,
        accounts: Accounts,
        connections: int,
        seconds: int,
        warm_up_s: int,
        seed: int,
        echo: Echo,
    ) -> None:
        self._stack = stack
        self._accounts = accounts
        self._wallets = accounts.with_tokens()
        self._connections = connections
        self._seconds = seconds
        self._warm_up_s = warm_up_s
        self._seed = seed
        self._echo = echo
        self._rounds = 0
        self._transfers: list[Outcome] = []
        self._shared_port = int(stack.env["MERCURIA_HTTP_PORT"])

    def report(self, rounds: int, scale: int) -> Report:
        """Measure everything."""
        self._echo(f"Opening {len(self._wallets)} wallets.")
        asyncio.run(self._open())
        transfers = self._measure("transfers", self._shared_port, rounds)
        caught_up_after_s = self._wait_idle()
        self._echo(f"The workers were idle after {caught_up_after_s:.1f} s.")
        audit = audit_transfers(self._accounts, self._shared_port, self._transfers)
        for violation in audit.violations:
            self._echo(violation)
        reads = self._measure("reads", self._stack.workers[0].port, rounds)
        pgbench = self._pgbench(scale, rounds)
        return Report(
            python=platform.python_version(),
            cores=os.cpu_count() or 1,
            workers=len(self._stack.workers),
            partitions=int(self._stack.env["MERCURIA_PARTITIONS"]),
            wallets=len(self._wallets),
            connections=self._connections,
            seconds=self._seconds,
            warm_up_s=self._warm_up_s,
            seed=self._seed,
            transfers=transfers,
            caught_up_after_s=caught_up_after_s,
            audit=audit,
            reads=reads,
            pgbench=pgbench,
            ratio=transfers.median_per_s / pgbench.median_tps,
        )

    def profile(self, console: Console) -> None:
        """Print where the first worker's time goes in a round of transfers."""
        with profiling(self._stack, console):
            self._round("transfers", self._shared_port, self._seconds)

    async def _open(self) -> None:
        servers, partitions = self._stack.env["MERCURIA_KAFKA"], int(self._stack.env["MERCURIA_PARTITIONS"])
        async with command_producer(servers, partitions) as producer:
            await producer.send(list(self._accounts.opening()))
        with closing(Reader(self._shared_port, self._accounts.operator())) as reader:
            for wallet_id in self._accounts.owners:
                assert reader.balance(wallet_id) == FUNDS, f"{wallet_id} was not funded"

    def _measure(self, kind: Kind, port: int, rounds: int) -> Measured:
        self._round(kind, port, self._warm_up_s)
        measured = []
        for number in range(1, rounds + 1):
            measured.append(found := self._round(kind, port, self._seconds))
            others = f", {format_counts(found.others)}" if found.others else ""
            self._echo(f"Round {number} of {rounds}: {found.per_s:,.0f} {kind}/s{others}.")
        return Measured(
            measured,
            *(
                statistics.median(getattr(each, name) for each in measured)
                for name in ("per_s", "p50_ms", "p95_ms", "p99_ms")
            ),
        )

    def _round(self, kind: Kind, port: int, seconds: int) -> Round:
        self._rounds += 1
        plan = Plan(
            kind=kind,
            name=f"{kind}-{self._rounds}",
            host=LOOPBACK,
            port=port,
            connections=self._connections,
            seconds=seconds,
            wallets=self._wallets,
            seed=self._seed + self._rounds,
        )
        before = cpu_s_by_part(self._stack)
        outcome = self._load(plan)
        after = cpu_s_by_part(self._stack)
        if kind == "transfers":
            self._transfers.append(outcome)
        for status, body in outcome.examples.items():
            self._echo(f"An answer with {status}: {body}")
        return Round(
            answered=outcome.answered,
            per_s=outcome.per_s,
            p50_ms=outcome.p50_ms,
            p95_ms=outcome.p95_ms,
            p99_ms=outcome.p99_ms,
            max_ms=outcome.max_ms,
            others=outcome.others,
            cpu_s={name: after[name] - before[name] for name in after} | {"load": outcome.cpu_s},
            memory_mib=max(family_rss_bytes(pid_of(worker)) for worker in self._stack.workers) / 2**20,
        )

    def _load(self, plan: Plan) -> Outcome:
        # With -P, since a folder of the script must not hide modules of the standard library.
        loaded = subprocess.run(
            [sys.executable, "-P", load.__file__],
            input=json.dumps(asdict(plan)),
            env=os.environ | processes.mark(self._stack.directory.path, "load"),
            capture_output=True,
            text=True,
            check=False,
        )
        if loaded.returncode != 0:
            worker = self._stack.workers[0]
            raise click.ClickException(worker.with_log(f"The load failed: {loaded.stderr}"))
        return Outcome(**json.loads(loaded.stdout))

    def _wait_idle(self) -> float:
        """Wait until the workers have also written PostgreSQL's rows; return after how long."""
        began = time.monotonic()
        while True:
            before, since = self._workers_cpu_s(), time.monotonic()
            time.sleep(1)
            if self._workers_cpu_s() - before < IDLE_CORES * len(self._stack.workers):
                return since - began
            if since - began > IDLE_WITHIN_S:
                raise click.ClickException(f"The workers are still busy after {IDLE_WITHIN_S} s.")

    def _workers_cpu_s(self) -> float:
        return sum(family_cpu_s(pid_of(worker)) for worker in self._stack.workers)

    def _pgbench(self, scale: int, rounds: int) -> Pgbench:
        self._echo("Filling the tables of pgbench.")
        tps = []
        with pgbench_database(self._stack.env["MERCURIA_DATABASE_OWNER"], scale) as dsn:
            self._wait_idle()
            for number in range(1, rounds + 1):
                tps.append(pgbench_tps(dsn, self._seconds))
                self._echo(f"Round {number} of {rounds}: {tps[-1]:,.0f} transactions/s of pgbench.")
        return Pgbench(scale, tps, statistics.median(tps))
