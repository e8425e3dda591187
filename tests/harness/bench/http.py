"""`harness bench http`: how many transfers are answered over HTTP and how fast, and what PostgreSQL itself does."""

import asyncio
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from http.client import HTTPConnection
from typing import Any, Literal
from uuid import UUID

import click
from rich.console import Console
from rich.table import Table

from mercuria.auth.tokens import Caller, Role
from mercuria.domain.commands import ClientCommand, Deposit, OpenWallet
from mercuria.embedded import processes
from mercuria.embedded.ports import LOOPBACK
from mercuria.embedded.stack import Stack
from mercuria.kafka.client import command_producer
from tests.harness.bench import bench, http_load
from tests.harness.bench.http_load import Outcome, Plan
from tests.harness.bench.measuring import family_cpu_s, family_rss_bytes
from tests.harness.bench.pgbench import CLIENTS, THREADS, pgbench_database, pgbench_tps
from tests.harness.bench.stacks import bench_stack, pid_of, profiling
from tests.harness.bench.workload import CURRENCY, FUNDS
from tests.harness.console import print_report, progress_console
from tests.harness.stacks import token_issuer

ANSWER_TIMEOUT_S = 30
IDLE_CORES = 0.15
"""Workers that take less processor time than so many cores have nothing to do."""
IDLE_WITHIN_S = 120
POLL_S = 0.05

Tell = Callable[[str], None]
Kind = Literal["transfers", "reads"]


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
    """Transactions that `pgbench` made on the same server, in rounds as long, while no worker had anything to do."""

    scale: int
    tps: list[float]
    median_tps: float


@dataclass(frozen=True, slots=True)
class Audit:
    """What wallets and transactions said after all transfers; sums are minor units."""

    transfers: int
    wallets: int
    sum_of_balances: int
    sum_of_deposits: int
    unsure_wallets: int
    transactions: int
    violations: list[str]


@dataclass(frozen=True, slots=True)
class Report:
    """What `harness bench http` found."""

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


@bench.command("http")
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
def http(
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
        measured = _Bench(stack, accounts, connections, seconds, warm_up_s, seed, console.print)
        report = measured.report(rounds, scale)
        if profile:
            measured.profile(console)
    print_report(report, _table(report), as_json=as_json)
    sys.exit(1 if report.audit.violations else 0)


class Accounts:
    """Wallets of one currency, each of a person of their own, and those people's access tokens.

    Args:
        seed: the same seed gives the same wallets and people.
    """

    def __init__(self, stack: Stack, count: int, seed: int) -> None:
        self._tokens = token_issuer(stack)
        self._random = random.Random(seed)
        self.owners = {self._uuid(): self._uuid() for _ in range(count)}
        """By wallet."""

    @property
    def total(self) -> int:
        """What is in all wallets together, in minor units."""
        return FUNDS * len(self.owners)

    def opening(self) -> Iterator[ClientCommand]:
        """Open and fill every wallet."""
        for wallet_id, owner_id in self.owners.items():
            yield OpenWallet(id=self._uuid(), wallet_id=wallet_id, owner_id=owner_id, currency=CURRENCY)
            yield Deposit(id=self._uuid(), wallet_id=wallet_id, amount=FUNDS, currency=CURRENCY)

    def with_tokens(self) -> list[tuple[str, str]]:
        """Return every wallet's id with an access token of its owner."""
        return [(str(wallet_id), self.token(owner_id)) for wallet_id, owner_id in self.owners.items()]

    def token(self, person_id: UUID, role: Role = "user") -> str:
        """Return an access token."""
        return self._tokens.issue(Caller(person_id, role))

    def operator(self) -> str:
        """Return an access token with which all wallets and transactions can be seen."""
        return self.token(self._uuid(), "operator")

    def _uuid(self) -> UUID:
        return UUID(int=self._random.getrandbits(128), version=4)


class Reader:
    """Reads wallets and transactions as an operator, one at a time."""

    def __init__(self, port: int, token: str) -> None:
        self._connection = HTTPConnection(LOOPBACK, port, timeout=ANSWER_TIMEOUT_S)
        self._headers = {"Authorization": f"Bearer {token}"}

    def get(self, path: str) -> Any:
        """Return the JSON at a path.

        Raises:
            click.ClickException: the answer is another one than 200, and is still when it has been asked for a while.
        """
        deadline = time.monotonic() + ANSWER_TIMEOUT_S
        while True:
            self._connection.request("GET", path, headers=self._headers)
            answer = self._connection.getresponse()
            body = answer.read()
            if answer.status == 200:
                return json.loads(body)
            # A worker that has just begun, or has much to decide, says that it is to be asked again.
            if answer.status != 503 or time.monotonic() > deadline:
                raise click.ClickException(f"GET {path} is answered with {answer.status}: {body.decode()}")
            time.sleep(POLL_S)

    def balance(self, wallet_id: UUID) -> int:
        """Return a wallet's balance, in minor units, after all that Kafka has for it."""
        return int(self.get(f"/api/v1/wallets/{wallet_id}?consistency=strong")["balance"])

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


class _Bench:
    def __init__(
        self,
        stack: Stack,
        accounts: Accounts,
        connections: int,
        seconds: int,
        warm_up_s: int,
        seed: int,
        tell: Tell,
    ) -> None:
        self._stack = stack
        self._accounts = accounts
        self._wallets = accounts.with_tokens()
        self._connections = connections
        self._seconds = seconds
        self._warm_up_s = warm_up_s
        self._seed = seed
        self._tell = tell
        self._rounds = 0
        self._transfers: list[Outcome] = []
        self._shared_port = int(stack.env["MERCURIA_HTTP_PORT"])

    def report(self, rounds: int, scale: int) -> Report:
        """Measure everything."""
        self._tell(f"Opening {len(self._wallets)} wallets.")
        asyncio.run(self._open())
        transfers = self._measure("transfers", self._shared_port, rounds)
        caught_up_after_s = self._wait_idle()
        self._tell(f"The workers had nothing left to do after {caught_up_after_s:.1f} s.")
        audit = self._audit()
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
        """Print what the first worker spends its time on in a round of transfers."""
        with profiling(self._stack, console):
            self._round("transfers", self._shared_port, self._seconds)

    async def _open(self) -> None:
        servers, partitions = self._stack.env["MERCURIA_KAFKA"], int(self._stack.env["MERCURIA_PARTITIONS"])
        async with command_producer(servers, partitions) as producer:
            await producer.send(list(self._accounts.opening()))
        for wallet_id, balance in self._balances().items():
            assert balance == FUNDS, f"{wallet_id} was not filled"

    def _measure(self, kind: Kind, port: int, rounds: int) -> Measured:
        self._round(kind, port, self._warm_up_s)
        measured = []
        for number in range(1, rounds + 1):
            measured.append(found := self._round(kind, port, self._seconds))
            others = f", {_listed(found.others)}" if found.others else ""
            self._tell(f"Round {number} of {rounds}: {found.per_s:,.0f} {kind}/s{others}.")
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
        before = self._cpu_s()
        outcome = self._load(plan)
        after = self._cpu_s()
        if kind == "transfers":
            self._transfers.append(outcome)
        for status, body in outcome.examples.items():
            self._tell(f"An answer with {status}: {body}")
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
        # With -P, since the folder of this file has another `http` than Python's own.
        loaded = subprocess.run(
            [sys.executable, "-P", http_load.__file__],
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

    def _cpu_s(self) -> dict[str, float]:
        return {part.name: family_cpu_s(pid_of(part)) for part in self._stack.parts}

    def _wait_idle(self) -> float:
        """Wait until the workers have done what is not answered for, as PostgreSQL's rows; return after how long."""
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

    def _audit(self) -> Audit:
        """Compare what wallets and transactions are with what was answered."""
        balances = self._balances()
        unsure = {index for outcome in self._transfers for index in outcome.unsure}
        violations = []
        for index, (wallet_id, balance) in enumerate(balances.items()):
            expected = FUNDS + sum(outcome.moved[index] for outcome in self._transfers)
            if index not in unsure and balance != expected:
                violations.append(f"Wallet {wallet_id} has {balance} instead of {expected}.")
        total = sum(balances.values())
        if total != self._accounts.total:
            violations.append(f"All wallets together have {total} instead of {self._accounts.total}.")
        samples = [json.loads(sample) for outcome in self._transfers for sample in outcome.samples]
        violations += self._wrong_transactions(samples)
        for violation in violations:
            self._tell(violation)
        return Audit(
            transfers=sum(outcome.answered for outcome in self._transfers),
            wallets=len(balances),
            sum_of_balances=total,
            sum_of_deposits=self._accounts.total,
            unsure_wallets=len(unsure),
            transactions=len(samples),
            violations=violations,
        )

    def _balances(self) -> dict[UUID, int]:
        with closing(self._reader()) as reader:
            return {wallet_id: reader.balance(wallet_id) for wallet_id in self._accounts.owners}

    def _wrong_transactions(self, answered: list[dict[str, Any]]) -> Iterator[str]:
        with closing(self._reader()) as reader:
            for transaction in answered:
                found = reader.get(f"/api/v1/transactions/{transaction['id']}")
                if found != transaction or found["status"] != "completed":
                    yield f"A transaction was answered as {transaction} and is {found}."

    def _reader(self) -> Reader:
        return Reader(self._shared_port, self._accounts.operator())

    def _pgbench(self, scale: int, rounds: int) -> Pgbench:
        self._tell("Filling the tables of pgbench.")
        tps = []
        with pgbench_database(self._stack.env["MERCURIA_DATABASE_OWNER"], scale) as dsn:
            self._wait_idle()
            for number in range(1, rounds + 1):
                tps.append(pgbench_tps(dsn, self._seconds))
                self._tell(f"Round {number} of {rounds}: {tps[-1]:,.0f} transactions/s of pgbench.")
        return Pgbench(scale, tps, statistics.median(tps))


def _listed(others: dict[str, int]) -> str:
    return ", ".join(f"{status}: {count:,}" for status, count in sorted(others.items()))


def _table(report: Report) -> Table:
    table = Table("", "/s", "p50 ms", "p95 ms", "p99 ms", "others", "CPU s", "worker's MiB")
    for kind, measured in (("transfers", report.transfers), ("GET wallet", report.reads)):
        for number, each in enumerate(measured.rounds, start=1):
            table.add_row(
                f"{kind} {number}",
                f"{each.per_s:,.0f}",
                *_milliseconds(each),
                _listed(each.others) or "none",
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
        f" {THREADS} threads, prepared. Workers had nothing left to do {report.caught_up_after_s:.1f} s after the"
        f" transfers. Checked after {audit.transfers:,} of them: {audit.wallets:,} balances and"
        f" {audit.transactions:,} transactions, {len(audit.violations)} wrong."
    )
