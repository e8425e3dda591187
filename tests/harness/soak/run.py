"""A soak: load for a long time on a stack whose parts are killed now and then, while everything is verified.

    soak = Soak(stack, seed=1, minutes=60)
    outcome = await soak.run()
    assert outcome.is_clean

The load is a chaos run's on Kafka and one's over HTTP, both at once; after it, the whole log, the projections and the
ledger are audited, as those do.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from random import Random
from typing import Any

from mercuria.embedded.errors import StackError
from mercuria.embedded.stack import Stack
from tests.harness.audit.auditor import Audit
from tests.harness.audit.projections import ProjectionsAudit, audit_projections
from tests.harness.audit.violations import Violations
from tests.harness.chaos.http.run import HttpRun
from tests.harness.chaos.kafka.run import KafkaRun
from tests.harness.console import Echo
from tests.harness.errors import StalledError
from tests.harness.soak.faults import RECOVERS_WITHIN_S, FaultInjector, in_turn
from tests.harness.soak.latencies import Latencies
from tests.harness.soak.monitor import Monitor
from tests.harness.soak.report import Minute, Outcome, grown_of, latency_of, minute_line
from tests.harness.soak.verifier import Verifier

CALM_S = 2.0
JITTER = 0.2
"""By which part of itself the time between two faults may be longer or shorter."""
WARM_UP_S = 120.0
MINUTE_S = 60.0


class Soak:
    """Load, faults and verification on a stack of two workers or more.

    Args:
        rate_per_s: how many commands a second to send to Kafka.
        requests_per_s: how many requests a second to send to the HTTP API, about half of them for changes.
        every_s: how long everything works between two faults, give or take a fifth; None for no faults.
        check_every_s: how long to wait from one check by `mercuria ledger verify` and `reconcile` to the next.
        echo: prints what happens.
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
        echo: Echo = lambda _: None,
    ) -> None:
        self.violations = Violations(lambda sentence: echo(f"VIOLATION: {sentence}"))
        self.errors = Violations(lambda sentence: echo(f"ERROR: {sentence}"))
        self._stack = stack
        self._seed = seed
        self._minutes = minutes
        self._every_s = every_s
        self._echo = echo
        self._random = Random(f"soak {seed}")
        self._kafka = KafkaRun(
            stack, seed=seed, commands=1, rate_per_s=rate_per_s, echo=echo, still_s=RECOVERS_WITHIN_S
        )
        self._http = HttpRun(
            stack,
            seed=seed,
            rate_per_s=requests_per_s,
            calm_s=CALM_S,
            echo=echo,
            violations=self.violations,
            is_tolerant=True,
        )
        self._verifier = Verifier(stack, self.violations, self.errors, check_every_s)
        self._monitor = Monitor(stack, self.errors, warm_up_s, self._consumer_lag)
        self._injector = FaultInjector(stack, self._random, self._kafka.pending, self.errors, echo)
        self._latencies = Latencies(self._kafka.pending)
        self._end = asyncio.Event()
        self._loaded = asyncio.Event()
        self._began_s = time.monotonic()
        self._load_s = 0.0
        self._reported: list[Minute] = []
        self._audit: Audit | None = None
        self._projections: ProjectionsAudit | None = None

    async def run(self) -> Outcome:
        """Put the stack under load for the time, wait until it is idle, and audit everything."""
        # The audit may explain why the load did not end.
        for step in (self._put_under_load, self._check):
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
        self._collect_latencies()
        return Outcome(
            seed=self._seed,
            load_s=self._load_s or time.monotonic() - self._began_s,
            commands=self._kafka.pending.answered,
            requests=self._http.recorder.answered,
            latency=latency_of(self._latencies.all_s),
            calm=latency_of(self._latencies.calm_s),
            longest_pause_s=self._kafka.pending.longest_pause_s,
            refused=self._http.recorder.refused,
            refused_while_broken=self._injector.refused,
            faults=dict(self._injector.counts),
            recovery_s=self._injector.recovery_s,
            checks=dict(self._verifier.done),
            lag_at_most=self._monitor.lag_at_most,
            memory={name: grown_of(growth) for name, growth in self._monitor.memory.items()},
            disk={name: grown_of(growth) for name, growth in sorted(self._monitor.disk.items())},
            minutes=self._reported,
            violation_count=self.violations.count,
            violations=self.violations.sentences,
            error_count=self.errors.count,
            errors=self.errors.sentences,
            audit=self._audit,
            stages=self._projections,
        )

    # The load, and what goes on beside it.

    async def _put_under_load(self) -> None:
        beside: Sequence[Callable[[], Coroutine[Any, Any, None]]] = (
            self._verifier.follow,
            self._verifier.check_again_and_again,
            self._monitor.run,
            self._report_minutes,
        )
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(each()) for each in beside]
                async with asyncio.TaskGroup() as load:
                    load.create_task(self._kafka.apply_load(lambda _: self._wait_for_end()))
                    load.create_task(self._http.apply_load(self._inject_faults))
                for task in tasks:
                    task.cancel()
        except* (StalledError, StackError) as group_of_one:
            raise _first(group_of_one) from None

    async def _wait_for_end(self) -> None:
        await self._end.wait()

    async def _inject_faults(self, run: HttpRun) -> None:
        """Inject one fault after the other until the time is over."""
        self._began_s = time.monotonic()
        self._loaded.set()
        over_s = self._began_s + self._minutes * MINUTE_S
        names = in_turn(self._random)
        while not self._end.is_set():
            await self._wait_for_end_until(min(over_s, self._next_fault_s(over_s)))
            if time.monotonic() >= over_s:
                self.end()
            elif not self._end.is_set():
                await self._inject_fault(next(names), run)
        self._load_s = time.monotonic() - self._began_s

    def _next_fault_s(self, over_s: float) -> float:
        jitter = self._random.uniform(1 - JITTER, 1 + JITTER)
        return over_s if self._every_s is None else time.monotonic() + self._every_s * jitter

    async def _wait_for_end_until(self, moment_s: float) -> None:
        try:
            async with asyncio.timeout(max(0.0, moment_s - time.monotonic())):
                await self._end.wait()
        except TimeoutError:
            pass

    async def _inject_fault(self, name: str, run: HttpRun) -> None:
        self._collect_latencies()
        self._monitor.begin_fault()
        await self._injector.inject(name, run)
        self._collect_latencies()
        self._monitor.end_fault()

    def _collect_latencies(self) -> None:
        self._latencies.collect(is_calm=not self._monitor.expects_restarts)

    async def _consumer_lag(self) -> dict[str, int]:
        return await self._http.consumer_lag() if self._loaded.is_set() else {}

    async def _report_minutes(self) -> None:
        await self._loaded.wait()
        while True:
            minute = await self._measure_minute(len(self._reported) + 1)
            self._reported.append(minute)
            self._echo(minute_line(minute))

    async def _measure_minute(self, number: int) -> Minute:
        """Wait until a minute has passed, and return its figures."""
        pending, recorder = self._kafka.pending, self._http.recorder
        began_s, commands, requests = time.monotonic(), pending.answered, recorder.answered
        self._collect_latencies()
        first = len(self._latencies.all_s)
        await asyncio.sleep(self._began_s + number * MINUTE_S - began_s)
        self._collect_latencies()
        took_s = time.monotonic() - began_s
        return Minute(
            number=number,
            of=self._minutes,
            commands_per_s=(pending.answered - commands) / took_s,
            requests_per_s=(recorder.answered - requests) / took_s,
            latency=latency_of(self._latencies.all_s[first:]),
            lag=self._monitor.lag,
            memory_mib=self._monitor.memory_mib(),
            faults=self._injector.counts.total(),
            violations=self.violations.count,
            errors=self.errors.count,
        )

    # The end.

    async def _check(self) -> None:
        """Wait until the stack is idle, and audit the whole."""
        if self._stack.failure is not None:
            return
        self._echo("The load is over; when the stack is idle, everything is audited.")
        self._projections = await audit_projections(self._stack)
        self.violations.add_all(self._projections.violation_count, self._projections.violations)
        self._audit = (await self._http.check()).audit
        self.violations.add_all(self._audit.violation_count, self._audit.violations)
        await self._verifier.check("ledger verify")
        self._compare_money((await self._verifier.check("reconcile")).get("money", {}), self._audit)

    def _compare_money(self, money: dict[str, dict[str, str]], audit: Audit) -> None:
        """Check that nothing is in flight, and that wallets and the ledger hold the deposits less the withdrawals."""
        for currency, sums in money.items():
            flows = audit.totals[currency]
            net = flows.deposits - flows.withdrawals
            if sums != {"wallets": str(net), "ledger": str(net), "in_flight": "0"}:
                self.violations.add(
                    f"{currency}: deposits less withdrawals are {net}, and PostgreSQL has {sums}."
                )


def _first(group: BaseExceptionGroup[Any]) -> BaseException:
    """Return the first of the exceptions in a group, and in groups within it."""
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
