"""A soak: load for a long time on a stack whose parts are killed now and then, while everything is verified.

    soak = Soak(stack, seed=1, minutes=60)
    outcome = await soak.run()
    assert outcome.is_clean

The load is a chaos run's on Kafka and one's over HTTP, both at once; after it, the whole log, the
stages and the ledger are audited, as those do.
"""

import asyncio
import time
from array import array
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import psutil
from msgspec import Struct

from mercuria.embedded.errors import StackError
from mercuria.embedded.stack import Stack
from tests.harness.audit.auditor import Audit
from tests.harness.audit.projections import ProjectionsAudit, audit_projections
from tests.harness.audit.violations import Violations
from tests.harness.bench.measuring import family_rss_bytes
from tests.harness.chaos.http.run import HttpRun
from tests.harness.chaos.kafka.run import KafkaRun
from tests.harness.errors import StalledError
from tests.harness.soak.faults import FAULTS, in_turn
from tests.harness.soak.growth import Growth
from tests.harness.soak.verifier import Verifier

RECOVERS_WITHIN_S = 180.0
"""So soon after a part is there again, everything has to be answered again: that may be a busy machine."""
CALM_S = 2.0
LOOK_EVERY_S = 0.1
JITTER = 0.2
"""By which part of itself the time between two faults may be longer or shorter."""
SAMPLE_EVERY_S = 5.0
WARM_UP_S = 120.0
MINUTE_S = 60.0
MIB = 2**20
BYTES_A_BLOCK = 512
"""The unit of `st_blocks`, whatever the file system's is."""


class Latency(Struct):
    """How long commands waited for their events, in milliseconds."""

    count: int
    p50_ms: float | None
    p99_ms: float | None
    max_ms: float | None


class Grown(Struct):
    """How something grows, in MiB: `last` is what was measured last, `starts` how often it began anew."""

    mib_an_hour: float | None
    last_mib: float
    starts: int
    samples: int


class Minute(Struct):
    """The figures of one minute. `lag` are records, by stage; empty where nobody could say."""

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
    counted in `checks`. Requests that were refused (503) or lost are asked again. `recovery_s` says by fault how long
    it took at most until everything was answered again. The audits are None where it was ended before them.
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


class Soak:
    """Load, faults, and who verifies, on a stack of two workers or more.

    Args:
        rate_per_s: how many commands a second to send to Kafka.
        requests_per_s: how many requests a second to send to the HTTP API, about half of them orders.
        every_s: how long everything works between two faults, give or take a fifth; None for no faults.
        check_every_s: how long to wait from one check by `mercuria ledger verify` and `reconcile` to the next.
        tell: hears of what happens, a sentence at a time.
    """

    def __init__(
        self,
        stack: Stack,
        *,
        seed: int,
        minutes: float,
        rate_per_s: float = 200,
        requests_per_s: float = 20,
        every_s: float | None = 90,
        check_every_s: float = 60,
        warm_up_s: float = WARM_UP_S,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.violations = Violations(lambda sentence: tell(f"VIOLATION: {sentence}"))
        self.errors = Violations(lambda sentence: tell(f"ERROR: {sentence}"))
        self.verifier = Verifier(stack, self.violations, self.errors, check_every_s)
        self._stack = stack
        self._seed = seed
        self._minutes = minutes
        self._every_s = every_s
        self._tell = tell
        self._random = Random(f"soak {seed}")
        self._commands = KafkaRun(
            stack, seed=seed, commands=1, rate_per_s=rate_per_s, echo=tell, still_s=RECOVERS_WITHIN_S
        )
        self._requests = HttpRun(
            stack,
            seed=seed,
            rate_per_s=requests_per_s,
            calm_s=CALM_S,
            echo=tell,
            violations=self.violations,
            is_tolerant=True,
        )
        self._end = asyncio.Event()
        self._loaded = asyncio.Event()
        self._began_s = time.monotonic()
        self._load_s = 0.0
        self._is_broken = False
        self._faults: Counter[str] = Counter()
        self._recovery_s: dict[str, float] = {}
        self._refused_broken = 0
        self._pids: dict[str, int] = {}
        self._waits_s, self._calm_waits_s = array("d"), array("d")
        self._memory = {part.name: Growth(warm_up_s) for part in stack.parts}
        self._disk: dict[str, Growth] = {}
        self._warm_up_s = warm_up_s
        self._lag: dict[str, int] = {}
        self._lag_at_most: dict[str, int] = {}
        self._told: list[Minute] = []
        self._audit: Audit | None = None
        self._stages: ProjectionsAudit | None = None

    # From the beginning to the end.

    async def run(self) -> Outcome:
        """Put the stack under load for the time, wait until all is at rest, and audit everything."""
        # What the load could not bring to its end, the audit may explain.
        for step in (self._put_under_load, self._close):
            try:
                await step()
            except (StalledError, StackError) as error:
                self.errors.add(str(error))
        return self.outcome()

    def end(self) -> None:
        """End the load early."""
        self._end.set()

    def outcome(self) -> Outcome:
        """Return the figures up to here."""
        self._take_waits()
        return Outcome(
            seed=self._seed,
            load_s=self._load_s or time.monotonic() - self._began_s,
            commands=self._commands.pending.answered,
            requests=self._requests.recorder.answered,
            latency=_latency(self._waits_s),
            calm=_latency(self._calm_waits_s),
            longest_pause_s=self._commands.pending.longest_pause_s,
            refused=self._requests.recorder.refused,
            refused_while_broken=self._refused_broken,
            faults=dict(self._faults),
            recovery_s=self._recovery_s,
            checks=dict(self.verifier.done),
            lag_at_most=self._lag_at_most,
            memory={name: _grown(growth) for name, growth in self._memory.items()},
            disk={name: _grown(growth) for name, growth in sorted(self._disk.items())},
            minutes=self._told,
            violation_count=self.violations.count,
            violations=self.violations.sentences,
            error_count=self.errors.count,
            errors=self.errors.sentences,
            audit=self._audit,
            stages=self._stages,
        )

    async def _put_under_load(self) -> None:
        beside: Sequence[Callable[[], Coroutine[Any, Any, None]]] = (
            self.verifier.follow,
            self.verifier.check_again_and_again,
            self._measure,
            self._tell_minutes,
        )
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(each()) for each in beside]
                async with asyncio.TaskGroup() as load:
                    load.create_task(self._commands.apply_load(lambda _: self._wait_for_end()))
                    load.create_task(self._requests.apply_load(self._inject_faults))
                for task in tasks:
                    task.cancel()
        except* (StalledError, StackError) as group_of_one:
            raise _first(group_of_one) from None

    async def _wait_for_end(self) -> None:
        await self._end.wait()

    async def _inject_faults(self, run: HttpRun) -> None:
        """Break one part after the other until the time is over."""
        self._began_s = time.monotonic()
        self._loaded.set()
        over_s = self._began_s + self._minutes * MINUTE_S
        names = in_turn(self._random)
        while not self._end.is_set():
            began_s = time.monotonic()
            pause_s = (self._every_s or 0) * self._random.uniform(1 - JITTER, 1 + JITTER)
            next_s = min(over_s, began_s + pause_s if self._every_s is not None else over_s)
            await self._rest_until(next_s)
            if time.monotonic() >= over_s:
                self.end()
            elif not self._end.is_set():
                await self._break(next(names), run)
        self._load_s = time.monotonic() - self._began_s

    async def _rest_until(self, moment_s: float) -> None:
        try:
            async with asyncio.timeout(max(0.0, moment_s - time.monotonic())):
                await self._end.wait()
        except TimeoutError:
            pass

    async def _break(self, name: str, run: HttpRun) -> None:
        """Break something, and wait until everything is answered as it should be again."""
        self._take_waits()
        self._is_broken = True
        self._faults[name] += 1
        began_s, refused = time.monotonic(), run.recorder.refused
        await FAULTS[name](run, self._random)
        try:
            async with asyncio.timeout(RECOVERS_WITHIN_S):
                await self._recovered()
        except TimeoutError:
            self.errors.add(f"{RECOVERS_WITHIN_S:.0f} s after {name}, not everything is answered again.")
        took_s = time.monotonic() - began_s
        self._recovery_s[name] = max(took_s, self._recovery_s.get(name, 0.0))
        self._tell(f"All is answered again {took_s:.1f} s after it began.")
        self._refused_broken += run.recorder.refused - refused
        self._take_waits()
        self._pids = self._pids_now()
        self._is_broken = False

    async def _recovered(self) -> None:
        """Wait until all parts are there, and what was sent until then is answered, in all partitions."""
        while not await asyncio.to_thread(self._is_all_ready):  # noqa: ASYNC110  parts say nothing by themselves
            await asyncio.sleep(LOOK_EVERY_S)
        ready_s = time.monotonic()
        while self._commands.pending.answered_to_s < ready_s:  # noqa: ASYNC110  nothing happens at once with it
            await asyncio.sleep(LOOK_EVERY_S)

    def _is_all_ready(self) -> bool:
        return all(part.is_ready() for part in self._stack.parts)

    async def _close(self) -> None:
        """Wait until everything is at rest, and audit the whole."""
        if self._stack.failure is not None:
            return
        self._tell("The load is over; when all is at rest, everything is audited.")
        self._stages = await audit_projections(self._stack)
        self.violations.add_all(self._stages.violation_count, self._stages.violations)
        self._audit = (await self._requests.check()).audit
        self.violations.add_all(self._audit.violation_count, self._audit.violations)
        await self.verifier.check("ledger verify")
        self._compare_money((await self.verifier.check("reconcile")).get("money", {}), self._audit)

    def _compare_money(self, money: dict[str, dict[str, str]], audit: Audit) -> None:
        """At rest, nothing is in flight, and wallets and the ledger have what came in and did not go out."""
        for currency, sums in money.items():
            flows = audit.totals[currency]
            there = flows.deposits - flows.withdrawals
            if sums != {"wallets": str(there), "ledger": str(there), "in_flight": "0"}:
                self.violations.add(
                    f"{currency}: {there} came in and did not go out, and PostgreSQL has {sums}."
                )

    # What is measured.

    async def _measure(self) -> None:
        """Measure memory, disks and lag, and see who has started again."""
        self._pids = self._pids_now()
        while True:
            if self._stack.failure is not None:
                raise self._stack.failure
            pids, at_s = self._pids_now(), time.monotonic()
            for name in pids.keys() & self._pids.keys():
                if pids[name] != self._pids[name] and not self._is_broken:
                    self.errors.add(f"{name} ended by itself, and was started again.")
            self._pids |= pids
            for name, pid in pids.items():
                try:
                    self._memory[name].take(pid, at_s, family_rss_bytes(pid))
                except psutil.Error:
                    continue  # It has just been killed.
            sizes = await asyncio.to_thread(_sizes, self._stack.directory.path)
            for name, size in sizes.items():
                self._disk.setdefault(name, Growth(self._warm_up_s)).take(None, at_s, size)
            if self._loaded.is_set():
                self._lag = await self._requests.consumer_lag()
            for stage, records in self._lag.items():
                self._lag_at_most[stage] = max(records, self._lag_at_most.get(stage, 0))
            await asyncio.sleep(SAMPLE_EVERY_S)

    def _pids_now(self) -> dict[str, int]:
        return {part.name: part.pid for part in self._stack.parts if part.pid is not None}

    def _take_waits(self) -> None:
        waits_s = self._commands.pending.take_latencies_s()
        self._waits_s.extend(waits_s)
        if not self._is_broken:
            self._calm_waits_s.extend(waits_s)

    async def _tell_minutes(self) -> None:
        await self._loaded.wait()
        number = 0
        while True:
            began_s, answered, asked = (
                time.monotonic(),
                self._commands.pending.answered,
                self._requests.recorder.answered,
            )
            self._take_waits()
            first = len(self._waits_s)
            await asyncio.sleep(self._began_s + (number + 1) * MINUTE_S - began_s)
            number += 1
            self._take_waits()
            took_s = time.monotonic() - began_s
            minute = Minute(
                number=number,
                of=self._minutes,
                commands_per_s=(self._commands.pending.answered - answered) / took_s,
                requests_per_s=(self._requests.recorder.answered - asked) / took_s,
                latency=_latency(self._waits_s[first:]),
                lag=self._lag,
                memory_mib={name: growth.last / MIB for name, growth in self._memory.items()},
                faults=self._faults.total(),
                violations=self.violations.count,
                errors=self.errors.count,
            )
            self._told.append(minute)
            self._tell(sentence_of(minute))


def sentence_of(minute: Minute) -> str:
    """Return a minute in one line."""
    lag = ", ".join(f"{stage} {records}" for stage, records in minute.lag.items()) or "unknown"
    memory = ", ".join(f"{name} {mib:.0f}" for name, mib in minute.memory_mib.items())
    return (
        f"{minute.number} of {minute.of:g} min: {minute.commands_per_s:.0f} commands/s,"
        f" {minute.requests_per_s:.0f} requests/s,"
        f" p50 {shown_ms(minute.latency.p50_ms)}, p99 {shown_ms(minute.latency.p99_ms)}; behind: {lag};"
        f" MiB: {memory}; {minute.faults} faults, {minute.violations} violations, {minute.errors} errors."
    )


def shown_ms(ms: float | None) -> str:
    """Return a time as people read it; "-" where there is none."""
    return "-" if ms is None else f"{ms:,.0f} ms"


def _latency(waits_s: Sequence[float]) -> Latency:
    ordered = sorted(waits_s)
    if not ordered:
        return Latency(0, None, None, None)
    p50, p99 = (1000 * ordered[int(part * (len(ordered) - 1))] for part in (0.5, 0.99))
    return Latency(len(ordered), p50, p99, 1000 * ordered[-1])


def _grown(growth: Growth) -> Grown:
    an_hour = growth.an_hour
    return Grown(
        mib_an_hour=None if an_hour is None else an_hour / MIB,
        last_mib=growth.last / MIB,
        starts=growth.series,
        samples=growth.measured,
    )


def _sizes(directory: Path) -> dict[str, int]:
    """Return how many bytes each part of a data directory takes on disk: files that are full of holes take less."""
    return {folder.name: _size(folder) for folder in directory.iterdir() if folder.is_dir()}


def _size(folder: Path) -> int:
    size = 0
    for path in folder.rglob("*"):
        # Segments and temporary files go while somebody looks.
        with suppress(OSError):
            size += path.lstat().st_blocks * BYTES_A_BLOCK
    return size


def _first(group: BaseExceptionGroup[Any]) -> BaseException:
    """Return the first of the exceptions in a group, and in groups within it."""
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
