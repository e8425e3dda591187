"""`harness bench scaling`: what more workers bring, and how long a wallet waits when one comes, goes or dies."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from uuid import UUID, uuid4

import click
import msgspec
import psycopg2
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from rich.table import Table

from mercuria.domain.commands import Deposit
from mercuria.embedded.errors import StackError
from mercuria.embedded.stack import Stack
from mercuria.kafka.client import command_producer, event_reader
from mercuria.kafka.cloudevents import read_event
from mercuria.topics import WALLET_COMMANDS
from tests.harness.bench.pipeline import Feed
from tests.harness.bench.stacks import bench_stack
from tests.harness.bench.workload import CURRENCY, Workload
from tests.harness.console import Echo, print_report, progress_console

WALLETS = 400
RATE_PER_S = 200
BEFORE_S = 5.0
"""Commands come for so long before a worker comes or goes."""
CALM_S = 5.0
"""For so long no command may have waited, after it."""
CALM_MS = 1500.0
"""Longer than anybody waits on a small machine while nothing happens."""
WITHIN_S = 120.0


@dataclass(frozen=True, slots=True)
class Throughput:
    """Transfers a second through all stages."""

    workers: int
    transfers_per_s: float


@dataclass(frozen=True, slots=True)
class Pause:
    """The longest time from producing a command to its event while something happens to one of the workers."""

    standbys: int
    what: str
    workers_before: int
    longest_wait_s: float
    usual_wait_ms: float


@dataclass(frozen=True, slots=True)
class Report:
    """The figures of `harness bench scaling`."""

    partitions: int
    throughput: list[Throughput]
    pauses: list[Pause]


@click.command("scaling")
@click.option("--partitions", type=click.IntRange(4, 1024), default=8, show_default=True)
@click.option("--seconds", type=click.IntRange(5), default=15, show_default=True, help="Of each throughput.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def scaling_command(partitions: int, seconds: int, as_json: bool) -> None:
    """Throughput with 1, 2 and 4 workers, and the longest wait when one is added, stopped and killed.

    The waits are measured with and without standby copies of the tables, at 200 commands a second over all partitions.
    """
    echo = progress_console().print
    report = Report(
        partitions,
        [_throughput(workers, partitions, seconds, echo) for workers in (1, 2, 4)],
        [pause for standbys in (1, 0) for pause in _pauses_with(standbys, partitions, echo)],
    )
    print_report(report, _table(report), as_json=as_json)


def _throughput(workers: int, partitions: int, seconds: int, echo: Echo) -> Throughput:
    with bench_stack(workers, partitions) as stack:
        per_s = asyncio.run(_transfers_per_s(stack, seconds))
    echo(f"{workers} workers: {per_s:,.0f} transfers/s.")
    return Throughput(workers, per_s)


async def _transfers_per_s(stack: Stack, seconds: int) -> float:
    servers, partitions = stack.env["MERCURIA_KAFKA"], int(stack.env["MERCURIA_PARTITIONS"])
    with closing(psycopg2.connect(stack.env["MERCURIA_DATABASE"])) as database:
        database.autocommit = True
        async with command_producer(servers, partitions) as producer:
            feed = Feed(stack, Workload(1000, 1), producer, database)
            await feed.open()
            await feed.keep_going(lambda began_s: time.monotonic() - began_s > seconds)
            entered, began_s = feed.entered(), time.monotonic()
            await feed.keep_going(lambda began_s: time.monotonic() - began_s > seconds)
            return (feed.entered() - entered) / (time.monotonic() - began_s)


def _pauses_with(standbys: int, partitions: int, echo: Echo) -> list[Pause]:
    with bench_stack(2, partitions, settings={"MERCURIA_STANDBYS": str(standbys)}) as stack:
        return asyncio.run(_pauses(stack, standbys, echo))


async def _pauses(stack: Stack, standbys: int, echo: Echo) -> list[Pause]:
    workload = Workload(WALLETS, 1)
    servers, partitions = stack.env["MERCURIA_KAFKA"], int(stack.env["MERCURIA_PARTITIONS"])
    async with command_producer(servers, partitions) as producer:
        await producer.send(list(workload.opening()))
    events: list[tuple[str, Callable[[], object]]] = [
        ("one is added", stack.add_worker),
        ("one is stopped", lambda: stack.workers[2].stop()),
        ("one is killed", lambda: stack.workers[1].kill()),
    ]
    pauses = []
    async with Waits(servers, workload.wallet_ids) as waits:
        for what, happens in events:
            before = sum(worker.is_alive() for worker in stack.workers)
            usual_ms = await waits.usual_ms()
            longest_s = await waits.longest_s(lambda happens=happens: asyncio.to_thread(happens))  # type: ignore[misc]
            echo(f"{standbys} standbys, {before} workers, {what}: {longest_s:.2f} s.")
            pauses.append(Pause(standbys, what, before, longest_s, usual_ms))
    return pauses


class Waits:
    """Commands at a steady rate to all wallets in turn, each timed until its event is here."""

    def __init__(self, servers: str, wallet_ids: list[UUID]) -> None:
        self._servers = servers
        self._wallet_ids = wallet_ids
        self._sent: dict[UUID, float] = {}
        self._took: list[tuple[float, float]] = []

    async def __aenter__(self) -> "Waits":
        self._producer = AIOKafkaProducer(bootstrap_servers=self._servers, acks="all")
        await self._producer.start()
        self._reader = event_reader(self._servers)
        consumer = await self._reader.__aenter__()
        self._tasks = [asyncio.create_task(self._send()), asyncio.create_task(self._read(consumer))]
        return self

    async def __aexit__(self, *error: object) -> None:
        for task in self._tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await self._reader.__aexit__(None, None, None)
        await self._producer.stop()

    async def usual_ms(self) -> float:
        """Return the median wait of some calm seconds."""
        await self._calm(time.monotonic())
        began_s = time.monotonic()
        await asyncio.sleep(BEFORE_S)
        took = sorted(took_s for at_s, took_s in self._took if at_s > began_s)
        return 1000 * took[len(took) // 2]

    async def longest_s(self, happens: Callable[[], Awaitable[object]]) -> float:
        """Return the longest wait from when something happens until no command waits any more."""
        began_s = time.monotonic()
        await happens()
        await self._calm(time.monotonic())
        return max(took_s for at_s, took_s in self._took if at_s > began_s - CALM_MS / 1000)

    async def _calm(self, since_s: float) -> None:
        """Wait until for a while each command was answered soon."""
        try:
            async with asyncio.timeout(WITHIN_S):
                while True:
                    now_s = time.monotonic()
                    oldest_s = min(self._sent.values(), default=now_s)
                    late = [at_s for at_s, took_s in self._took if took_s > CALM_MS / 1000]
                    quiet_since_s = max([since_s, *late[-1:]])
                    if now_s - quiet_since_s > CALM_S and now_s - oldest_s < CALM_MS / 1000:
                        return
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise StackError(
                f"For {WITHIN_S:.0f} s, a command always waited for more than {CALM_MS:.0f} ms: the machine is busy."
            ) from None

    async def _send(self) -> None:
        began_s, number = time.monotonic(), 0
        while True:
            wallet_id = self._wallet_ids[number % len(self._wallet_ids)]
            command = Deposit(id=uuid4(), wallet_id=wallet_id, amount=1, currency=CURRENCY)
            self._sent[command.id] = time.monotonic()
            await self._producer.send(WALLET_COMMANDS, msgspec.json.encode(command), str(wallet_id).encode())
            number += 1
            await asyncio.sleep(max(0.0, began_s + number / RATE_PER_S - time.monotonic()))

    async def _read(self, consumer: AIOKafkaConsumer) -> None:
        async for record in consumer:
            id_ = getattr(read_event(record.value), "transaction_id", None)
            sent_s = self._sent.pop(id_, None) if id_ is not None else None
            if sent_s is not None:
                now_s = time.monotonic()
                self._took.append((now_s, now_s - sent_s))


def _table(report: Report) -> Table:
    table = Table("", "value", "usual wait")
    for each in report.throughput:
        table.add_row(f"{each.workers} workers", f"{each.transfers_per_s:,.0f} transfers/s", "")
    table.add_section()
    for pause in report.pauses:
        table.add_row(
            f"{pause.standbys} standbys, {pause.workers_before} workers, {pause.what}",
            f"longest wait {pause.longest_wait_s:.2f} s",
            f"{pause.usual_wait_ms:.0f} ms",
        )
    return table
