"""`harness bench wallets`: how many commands a worker decides, how long one takes, and what a plain agent does."""

import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar
from uuid import uuid4

import click
import msgspec
import psutil
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from rich.table import Table

from mercuria.domain.commands import ClientCommand, Deposit
from mercuria.embedded import processes
from mercuria.embedded.stack import Stack
from mercuria.kafka.client import CommandProducer, command_producer, event_reader
from mercuria.kafka.cloudevents import read_event
from mercuria.topics import (
    BALANCES_CHANGELOG,
    RECEIPTS_CHANGELOG,
    WALLET_COMMANDS,
    WALLET_DEAD_LETTERS,
    WALLET_EVENTS,
)
from tests.harness.bench.measuring import (
    STALLED_AFTER_S,
    ProcessMeter,
    bytes_on_disk,
    end_of,
    time_until,
)
from tests.harness.bench.stacks import bench_stack
from tests.harness.bench.workload import CURRENCY, Workload
from tests.harness.console import Echo, print_report, progress_console
from tests.harness.errors import StalledError
from tests.harness.stacks import PARTITIONS

SENT_AT_ONCE = 5_000
LATENCY_RATE = 1_000
PLAIN_AGENT = "tests.harness.bench.plain"
PLAIN_COMMANDS = "plain.commands"
PLAIN_CHANGELOG = "plain-balances-changelog"
PLAIN_MESSAGES = 30_000
OUTPUTS = (WALLET_EVENTS, WALLET_COMMANDS, WALLET_DEAD_LETTERS, BALANCES_CHANGELOG, RECEIPTS_CHANGELOG)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the throughput measurement. Legs are the credits of the transfers, decided on top of the commands."""

    commands_per_s: float
    records_per_s: float
    seconds: float
    cpu_s: float
    peak_memory_mib: float
    kafka_bytes_per_command: float


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds from the call that produces a command to its event at a consumer."""

    rate_per_s: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float


@dataclass(frozen=True, slots=True)
class Report:
    """The figures of `harness bench wallets`."""

    wallets: int
    commands: int
    seed: int
    runs: list[Run]
    median_commands_per_s: float
    plain_agent_per_s: float
    ratio: float
    latency: Latency


@click.command("wallets")
@click.option("--wallets", "wallet_count", type=click.IntRange(2), default=10_000, show_default=True)
@click.option(
    "--commands",
    "command_count",
    type=click.IntRange(3),
    default=600_000,
    show_default=True,
    help="In each run.",
)
@click.option("--runs", type=click.IntRange(1), default=3, show_default=True)
@click.option(
    "--latency-s",
    type=click.IntRange(1),
    default=15,
    show_default=True,
    help="How long the latency is measured.",
)
@click.option("--seed", default=1, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def wallets_command(
    wallet_count: int, command_count: int, runs: int, latency_s: int, seed: int, as_json: bool
) -> None:
    """Commands decided per second by one worker, with all outputs acknowledged, and how long one takes.

    Deposits, withdrawals and transfers, a third each, over all wallets alike, with every part of the protocol. The
    commands wait in Kafka when the worker starts. Beside it, in the same run, a plain Faust agent with one table write
    a message.
    """
    console = progress_console()
    with bench_stack(workers=0) as stack:
        measured = _Bench(stack, Workload(wallet_count, seed), console.print)
        report = asyncio.run(measured.report(command_count, runs, latency_s, seed))
    print_report(report, _table(report), as_json=as_json)


class _Bench:
    def __init__(self, stack: Stack, workload: Workload, echo: Echo) -> None:
        self._stack = stack
        self._workload = workload
        self._echo = echo
        self._servers = stack.env["MERCURIA_KAFKA"]

    async def report(self, commands: int, runs: int, latency_s: int, seed: int) -> Report:
        """Measure everything."""
        async with (
            command_producer(self._servers, PARTITIONS) as producer,
            event_reader(self._servers) as events,
        ):
            self._echo(f"Opening {len(self._workload.wallet_ids)} wallets.")
            await self._send(producer, self._workload.opening())
            await self._drain(events, 0, 2 * len(self._workload.wallet_ids))
            measured = []
            for number in range(1, runs + 1):
                measured.append(await self._throughput(producer, events, commands))
                self._echo(f"Run {number} of {runs}: {measured[-1].commands_per_s:,.0f} commands/s.")
            latency = await self._with_worker(lambda _pid: self._latency(latency_s))
            self._echo(f"Latency: p50 {latency.p50_ms:.1f} ms, p99 {latency.p99_ms:.1f} ms.")
            plain_per_s = await self._plain(events)
        median = statistics.median(run.commands_per_s for run in measured)
        return Report(
            wallets=len(self._workload.wallet_ids),
            commands=commands,
            seed=seed,
            runs=measured,
            median_commands_per_s=median,
            plain_agent_per_s=plain_per_s,
            ratio=median / plain_per_s,
            latency=latency,
        )

    async def _throughput(self, producer: CommandProducer, events: AIOKafkaConsumer, commands: int) -> Run:
        start = await end_of(events, WALLET_EVENTS, PARTITIONS)
        await self._send(producer, self._workload.mixed(commands))
        transfers = commands // 3
        kafka = self._stack.directory.path / "kafka"
        before = bytes_on_disk(kafka, OUTPUTS)

        async def measure(pid: int) -> Run:
            meter = ProcessMeter(pid)
            meter.start()
            seconds, records = await time_until(
                events, WALLET_EVENTS, PARTITIONS, start, commands + transfers
            )
            meter.stop()
            written = bytes_on_disk(kafka, OUTPUTS) - before
            records_per_s = records / seconds
            return Run(
                commands_per_s=records_per_s * commands / (commands + transfers),
                records_per_s=records_per_s,
                seconds=seconds,
                cpu_s=meter.cpu_s,
                peak_memory_mib=meter.peak_bytes / 2**20,
                kafka_bytes_per_command=written / commands,
            )

        return await self._with_worker(measure)

    async def _drain(self, events: AIOKafkaConsumer, start: int, count: int) -> None:
        async def wait(_pid: int) -> Run | None:
            await time_until(events, WALLET_EVENTS, PARTITIONS, start, count)
            return None

        await self._with_worker(wait)

    async def _with_worker(self, measure: Callable[[int], Awaitable[T]]) -> T:
        """Start the worker, measure while it runs, and stop it."""
        if self._stack.workers:
            await asyncio.to_thread(self._stack.workers[0].start)
        else:
            await asyncio.to_thread(self._stack.add_worker)
        worker = self._stack.workers[0]
        try:
            assert worker.pid is not None
            return await measure(worker.pid)
        except (StalledError, psutil.NoSuchProcess) as error:
            raise click.ClickException(worker.with_log(str(error), count=40)) from error
        finally:
            await asyncio.to_thread(worker.stop)

    async def _send(self, producer: CommandProducer, commands: Iterable[ClientCommand]) -> None:
        waiting: list[ClientCommand] = []
        for command in commands:
            waiting.append(command)
            if len(waiting) == SENT_AT_ONCE:
                await producer.send(waiting)
                waiting = []
        await producer.send(waiting)

    async def _latency(self, seconds: int) -> Latency:
        """Send single commands at a steady rate, and time each until its event is here."""
        produced: dict[str, float] = {}
        took_ms: list[float] = []
        wallet_ids = self._workload.wallet_ids
        producer = AIOKafkaProducer(bootstrap_servers=self._servers, acks="all", enable_idempotence=True)
        await producer.start()
        async with event_reader(self._servers) as events:
            reading = asyncio.create_task(_time_events(events, LATENCY_RATE * seconds, produced, took_ms))
            began = time.perf_counter()
            count = LATENCY_RATE * seconds
            for number in range(count):
                await asyncio.sleep(max(0.0, began + number / LATENCY_RATE - time.perf_counter()))
                wallet_id = wallet_ids[number % len(wallet_ids)]
                command = Deposit(id=uuid4(), wallet_id=wallet_id, amount=1, currency=CURRENCY)
                produced[str(command.id)] = time.perf_counter()
                await producer.send(WALLET_COMMANDS, msgspec.json.encode(command), str(wallet_id).encode())
            rate = count / (time.perf_counter() - began)
            async with asyncio.timeout(STALLED_AFTER_S):
                await reading
        await producer.stop()
        # The first second warms caches on both sides.
        sample = sorted(took_ms[LATENCY_RATE:])
        p50, p95, p99 = (sample[int(len(sample) * share)] for share in (0.50, 0.95, 0.99))
        return Latency(rate, p50, p95, p99, sample[-1])

    async def _plain(self, events: AIOKafkaConsumer) -> float:
        """Measure the plain agent, on a fraction of the commands: it would take too long on all."""
        count = PLAIN_MESSAGES
        admin = AIOKafkaAdminClient(bootstrap_servers=self._servers)
        await admin.start()
        await admin.create_topics(
            [NewTopic(name, PARTITIONS, 1) for name in (PLAIN_COMMANDS, PLAIN_CHANGELOG)]
        )
        await admin.close()
        producer = AIOKafkaProducer(bootstrap_servers=self._servers, linger_ms=5)
        await producer.start()
        for number in range(count):
            wallet_id = str(self._workload.wallet_ids[number % len(self._workload.wallet_ids)])
            value = msgspec.json.encode({"wallet_id": wallet_id, "amount": 1})
            await producer.send(PLAIN_COMMANDS, value, wallet_id.encode())
        await producer.stop()
        environ = dict(os.environ) | self._stack.env
        environ |= processes.mark(self._stack.directory.path, "plain")
        environ["MERCURIA_BENCH_DIR"] = str(self._stack.directory.path / "plain")
        command = [sys.executable, "-m", "faust", "-A", PLAIN_AGENT, "worker", "--without-web"]
        with subprocess.Popen(  # noqa: ASYNC220  it only starts it
            command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as agent:
            try:
                seconds, records = await time_until(events, PLAIN_CHANGELOG, PARTITIONS, 0, count)
            finally:
                agent.kill()
        self._echo(f"A plain Faust agent: {records / seconds:,.0f} messages/s.")
        return records / seconds


async def _time_events(
    events: AIOKafkaConsumer, count: int, produced: dict[str, float], took_ms: list[float]
) -> None:
    async for message in events:
        now = time.perf_counter()
        id_ = str(getattr(read_event(message.value), "transaction_id", ""))
        if id_ in produced:
            took_ms.append(1000 * (now - produced.pop(id_)))
        if len(took_ms) == count:
            return


def _table(report: Report) -> Table:
    table = Table("", "commands/s", "records/s", "seconds", "CPU s", "peak MiB", "Kafka bytes/command")
    for number, run in enumerate(report.runs, start=1):
        table.add_row(
            f"run {number}",
            f"{run.commands_per_s:,.0f}",
            f"{run.records_per_s:,.0f}",
            f"{run.seconds:.1f}",
            f"{run.cpu_s:.1f}",
            f"{run.peak_memory_mib:.0f}",
            f"{run.kafka_bytes_per_command:.0f}",
        )
    table.add_section()
    table.add_row("median", f"{report.median_commands_per_s:,.0f}")
    table.add_row("plain Faust agent", f"{report.plain_agent_per_s:,.0f}")
    table.add_row("ratio", f"{report.ratio:.1f}")
    latency = report.latency
    table.caption = (
        f"{report.wallets:,} wallets, one worker, {PARTITIONS} partitions. One command at {latency.rate_per_s:,.0f}/s:"
        f" p50 {latency.p50_ms:.1f} ms, p95 {latency.p95_ms:.1f} ms, p99 {latency.p99_ms:.1f} ms."
    )
    return table
