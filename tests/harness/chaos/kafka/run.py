"""A chaos run on the log: commands at a rate, faults meanwhile, and then the audit of the whole log.

    outcome = await KafkaRun(stack, seed=1).run(kill_workers(kills=20))
    assert outcome.is_clean

Faults are functions of the run, so that they can wait for its progress; they are in `faults`, and tests add their own.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from random import Random

from msgspec import Struct

from mercuria.embedded.stack import Stack
from mercuria.kafka.client import command_producer, event_reader
from tests.harness.audit.auditor import Audit
from tests.harness.audit.stack import audit_stack
from tests.harness.chaos.kafka.generator import CommandGenerator
from tests.harness.chaos.kafka.load import receive_events, send_commands
from tests.harness.chaos.kafka.pending import PendingCommands
from tests.harness.console import Echo
from tests.harness.errors import StalledError

POLL_S = 0.02
OPENING_RATE_PER_S = 10_000
STILL_S = 120.0
"""A worker that decides nothing for so long will not come back: far more than a session, a restart and a recovery."""


class Outcome(Struct):
    """The figures of a run, and its audit."""

    seed: int
    sent: int
    faults: int
    longest_pause_s: float
    load_s: float
    audit_s: float
    audit: Audit

    @property
    def is_clean(self) -> bool:
        """Whether nothing is wrong."""
        return self.audit.is_clean


class KafkaRun:
    """Commands for a stack, faults meanwhile, and the audit.

    Args:
        commands: how many commands to send at least; it goes on as long as the faults do.
        rate_per_s: how many to send a second while they are answered.
        echo: prints what happens.
        still_s: how long no answer may come before the run is given up.
    """

    def __init__(
        self,
        stack: Stack,
        *,
        seed: int,
        commands: int = 60_000,
        rate_per_s: float = 1500,
        wallets: int = 500,
        echo: Echo = lambda _: None,
        still_s: float = STILL_S,
    ) -> None:
        self.stack = stack
        self.seed = seed
        self.random = Random(f"faults {seed}")
        self.generator = CommandGenerator(Random(seed), wallets)
        self.pending = PendingCommands()
        self.commands = commands
        self.rate_per_s = rate_per_s
        self.echo = echo
        self.fault_count = 0
        self._still_s = still_s
        self._servers = stack.env["MERCURIA_KAFKA"]
        self._partitions = int(stack.env["MERCURIA_PARTITIONS"])

    async def run(self, faults: "Faults | None" = None) -> Outcome:
        """Open the wallets, send commands while the faults happen, wait for all answers, and audit.

        Raises:
            StalledError: answers are missing, and no more come.
        """
        began_s = time.monotonic()
        try:
            await self.apply_load(faults)
        except ExceptionGroup as group:
            raise group.exceptions[0] from None
        load_s = time.monotonic() - began_s
        self.echo("All commands are answered; the log is audited.")
        audit = await audit_stack(self.stack)
        return Outcome(
            seed=self.seed,
            sent=self.pending.sent,
            faults=self.fault_count,
            longest_pause_s=self.pending.longest_pause_s,
            load_s=load_s,
            audit_s=time.monotonic() - began_s - load_s,
            audit=audit,
        )

    async def apply_load(self, faults: "Faults | None") -> None:
        """Open the wallets, send commands while the faults happen, and wait for all answers.

        Raises:
            ExceptionGroup: of a StalledError: answers are missing, and no more come.
        """
        async with (
            event_reader(self._servers) as reader,
            command_producer(self._servers, self._partitions) as producer,
            asyncio.TaskGroup() as group,
        ):
            receiving = group.create_task(receive_events(reader, self.pending))
            await send_commands(
                self.generator.opening(), producer, self.pending, OPENING_RATE_PER_S, lambda: False
            )
            await self.wait_until_settled()
            enough = self.pending.sent + self.commands
            injecting = group.create_task(self._inject(faults))
            await send_commands(
                self.generator.commands(),
                producer,
                self.pending,
                self.rate_per_s,
                lambda: injecting.done() and self.pending.sent >= enough,
            )
            await injecting
            await self.wait_until_settled()
            receiving.cancel()

    async def wait_until_settled(self) -> None:
        """Wait until all commands are answered and all transfers have ended."""
        await self._wait_while_answered(lambda: self.pending.open == 0)

    async def wait_for_answers(self, count: int) -> None:
        """Wait until so many more commands are answered."""
        enough = self.pending.answered + count
        await self._wait_while_answered(lambda: self.pending.answered >= enough)

    async def _inject(self, faults: "Faults | None") -> None:
        if faults is not None:
            await faults(self)

    async def _wait_while_answered(self, is_reached: Callable[[], bool]) -> None:
        """Wait for a condition, as long as answers come."""
        before, since_s = -1, time.monotonic()
        while not is_reached():
            if self.pending.answered != before:
                before, since_s = self.pending.answered, time.monotonic()
            if time.monotonic() > since_s + self._still_s:
                raise StalledError(
                    f"{self.pending.unanswered} commands have no answer, {self.pending.open} are not over, and"
                    f" for {self._still_s:.0f} seconds nothing came; see {self.stack.directory.path}/logs."
                )
            await asyncio.sleep(POLL_S)


Faults = Callable[["KafkaRun"], Awaitable[None]]
"""Injects faults into the stack of a run while it is under load."""
