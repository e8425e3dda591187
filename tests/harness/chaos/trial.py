"""A trial: load on a running stack, faults meanwhile, and then the whole log is audited.

    outcome = await Trial(stack, seed=1).run(kill_workers(stack, kills=20))
    assert outcome.is_clean

The faults are functions of the trial, so that they can see what goes on; the tests add their own.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Set
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

from msgspec import Struct

from mercuria.domain.wallet import Wallet
from mercuria.embedded.part import Part
from mercuria.embedded.stack import Stack
from mercuria.kafka.client import command_producer, event_reader, read_log
from mercuria.kafka.sealing import Seal
from mercuria.kafka.skips import all_skips
from mercuria.tables.balance_rows import read_rows
from mercuria.topics import BALANCES_CHANGELOG, WALLET_COMMANDS, WALLET_EVENTS
from tests.harness.audit.auditor import Audit, Auditor
from tests.harness.audit.money import WalletState
from tests.harness.audit.violations import Violations
from tests.harness.chaos.load import Load, Waiting, listen, send

POLL_S = 0.02
OPENING_RATE_PER_S = 10_000
STILL_S = 120.0
"""A worker that decides nothing for so long will not come back: far more than a session, a restart and a recovery."""
TABLES_WITHIN_S = 30.0


class TrialError(Exception):
    """The trial cannot come to its end; the message is one sentence that says what is missing."""


class Outcome(Struct):
    """The figures of a trial, and the audit."""

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


class Trial:
    """Load on a stack.

    Args:
        commands: how many commands to send at least; it goes on as long as the faults do.
        rate_per_s: how many to send a second while they are answered.
        tell: hears of what happens, a sentence at a time.
        still_s: how long no answer may come before the trial is given up.
    """

    def __init__(
        self,
        stack: Stack,
        *,
        seed: int,
        commands: int = 60_000,
        rate_per_s: float = 1500,
        wallets: int = 500,
        tell: Callable[[str], None] = lambda _: None,
        still_s: float = STILL_S,
    ) -> None:
        self.stack = stack
        self.seed = seed
        self.random = Random(f"faults {seed}")
        self.load = Load(Random(seed), wallets)
        self.waiting = Waiting()
        self.commands = commands
        self.rate_per_s = rate_per_s
        self.tell = tell
        self.faults = 0
        self._still_s = still_s
        self._servers = stack.env["MERCURIA_KAFKA"]
        self._partitions = int(stack.env["MERCURIA_PARTITIONS"])

    async def run(self, faults: "Faults | None" = None) -> Outcome:
        """Open the wallets, send commands while the faults happen, wait for all answers, and audit.

        Raises:
            TrialError: answers are missing, and no more come.
        """
        began_s = time.monotonic()
        try:
            await self.put_under_load(faults)
        except ExceptionGroup as group:
            raise group.exceptions[0] from None
        load_s = time.monotonic() - began_s
        self.tell("All commands are answered; the log is audited.")
        audit = await audit_stack(self.stack)
        return Outcome(
            seed=self.seed,
            sent=self.waiting.sent,
            faults=self.faults,
            longest_pause_s=self.waiting.longest_pause_s,
            load_s=load_s,
            audit_s=time.monotonic() - began_s - load_s,
            audit=audit,
        )

    async def put_under_load(self, faults: "Faults | None") -> None:
        """Open the wallets, send commands while the faults happen, and wait for all answers.

        Raises:
            ExceptionGroup: of a TrialError: answers are missing, and no more come.
        """
        async with (
            event_reader(self._servers) as reader,
            command_producer(self._servers, self._partitions) as producer,
            asyncio.TaskGroup() as group,
        ):
            listening = group.create_task(listen(reader, self.waiting))
            await send(self.load.opening(), producer, self.waiting, OPENING_RATE_PER_S, lambda: False)
            await self.settled()
            enough = self.waiting.sent + self.commands
            striking = group.create_task(self._strike(faults))
            await send(
                self.load.commands(),
                producer,
                self.waiting,
                self.rate_per_s,
                lambda: striking.done() and self.waiting.sent >= enough,
            )
            await striking
            await self.settled()
            listening.cancel()

    async def settled(self) -> None:
        """Wait until all commands are answered and all transfers have ended."""
        await self._progress(lambda: self.waiting.open == 0)

    async def answers(self, count: int) -> None:
        """Wait until so many more commands are answered."""
        enough = self.waiting.answered + count
        await self._progress(lambda: self.waiting.answered >= enough)

    async def _strike(self, faults: "Faults | None") -> None:
        if faults is not None:
            await faults(self)

    async def _progress(self, is_reached: Callable[[], bool]) -> None:
        """Wait for a condition, as long as answers come."""
        before, since_s = -1, time.monotonic()
        while not is_reached():
            if self.waiting.answered != before:
                before, since_s = self.waiting.answered, time.monotonic()
            if time.monotonic() > since_s + self._still_s:
                raise TrialError(
                    f"{self.waiting.unanswered} commands have no answer, {self.waiting.open} are not over, and"
                    f" for {self._still_s:.0f} seconds nothing came; see {self.stack.directory.path}/logs."
                )
            await asyncio.sleep(POLL_S)


Faults = Callable[[Trial], Awaitable[None]]
"""What happens to the stack while there is load; counts its strikes in `trial.faults`."""


def kill_workers(kills: int) -> Faults:
    """Return faults that kill a worker with SIGKILL at random moments, busy or while it recovers."""

    async def strike(trial: Trial) -> None:
        for _ in range(kills):
            # Mostly while it works; now and then while it starts or recovers.
            if trial.random.random() < 0.8:
                await trial.answers(trial.random.randint(1, 2 * trial.commands // kills))
            else:
                await asyncio.sleep(trial.random.uniform(0.5, 5))
            await kill(trial, trial.random.choice(trial.stack.workers))

    return strike


def stop_kafka(stop_s: float) -> Faults:
    """Return faults that freeze Kafka for a while, and then kill it; the stack starts it again."""

    async def strike(trial: Trial) -> None:
        await trial.answers(trial.commands // 4)
        await freeze(trial, trial.stack.kafka, stop_s)
        await trial.answers(trial.commands // 4)
        await kill(trial, trial.stack.kafka)
        await trial.answers(trial.commands // 4)

    return strike


async def kill(trial: Trial, part: Part) -> None:
    """Kill a part; the stack starts it again."""
    trial.tell(f"{part.title} is killed.")
    trial.faults += 1
    await asyncio.to_thread(part.kill)


async def freeze(trial: Trial, part: Part, for_s: float) -> None:
    """Freeze a part, and let it go on after a while."""
    trial.tell(f"{part.title} is frozen for {for_s:.0f} seconds.")
    trial.faults += 1
    part.suspend()
    try:
        await asyncio.sleep(for_s)
    finally:
        part.resume()
    trial.tell(f"{part.title} goes on.")


async def audit_stack(stack: Stack) -> Audit:
    """Audit the logs of a stack from their beginning, and compare the tables with what the events say."""
    servers = stack.env["MERCURIA_KAFKA"]
    skips = [skip async for skip in all_skips(servers) if skip.topic == WALLET_COMMANDS]
    auditor = auditor_of(stack, Violations(), {(skip.partition, skip.offset) for skip in skips})
    decided = dict.fromkeys(range(int(stack.env["MERCURIA_PARTITIONS"])), -1)
    async for record in read_log(servers, WALLET_COMMANDS):
        decided[record.partition] = record.offset
        take(auditor, record)
    async for record in read_log(servers, WALLET_EVENTS):
        take(auditor, record)
    tables = await tables_after(servers, decided)
    for sentence in differences(tables, auditor.wallets):
        auditor.violations.add(sentence)
    return auditor.report()


def auditor_of(stack: Stack, violations: Violations, skipped: Set[tuple[int, int]] = frozenset()) -> Auditor:
    """Return an auditor of a stack's logs, which notes in `violations` what is wrong."""
    partitions, seal = int(stack.env["MERCURIA_PARTITIONS"]), Seal(leg_key_of(stack))
    return Auditor(partitions, seal, violations=violations, skipped=skipped)


def leg_key_of(stack: Stack) -> bytes:
    """Return the leg key of a stack."""
    key_file = Path(stack.env.get("MERCURIA_LEG_KEY_FILE") or stack.directory.path / "leg.key")
    return bytes.fromhex(key_file.read_text("ascii").strip())


def take(auditor: Auditor, record: Any) -> None:
    """Let an auditor have the next record of one of the logs."""
    if record.topic == WALLET_COMMANDS:
        auditor.take_command(
            record.partition, record.offset, record.value, key=record.key, time_ms=record.timestamp
        )
    else:
        auditor.take_event(record.partition, record.offset, record.value, key=record.key)


async def tables_after(servers: str, decided: dict[int, int]) -> dict[UUID, Wallet]:
    """Return the wallets in the tables, as soon as these hold all commands up to the offsets `decided`.

    They are read from the changelog, as a worker does that has lost its directory.

    Raises:
        TrialError: they do not get there.
    """
    wallets: dict[UUID, Wallet] = {}
    missing = {partition for partition, offset in decided.items() if offset >= 0}
    deadline_s = time.monotonic() + TABLES_WITHIN_S
    async with event_reader(servers, BALANCES_CHANGELOG, from_beginning=True) as reader:
        while missing:
            if time.monotonic() > deadline_s:
                raise TrialError(f"The tables of the partitions {sorted(missing)} do not hold all commands.")
            for tp, records in (await reader.getmany(timeout_ms=100, max_records=5000)).items():
                for row in read_rows((record.key, record.value) for record in records):
                    if not isinstance(row, Wallet):
                        missing -= {tp.partition} if row.offset >= decided[tp.partition] else set()
                    elif row.id not in wallets or row.version >= wallets[row.id].version:
                        wallets[row.id] = row
    return wallets


def differences(tables: dict[UUID, Wallet], events: dict[UUID, WalletState]) -> list[str]:
    """Say in which wallets the tables and the events differ."""
    sentences = []
    for wallet_id in tables.keys() | events.keys():
        row, state = tables.get(wallet_id), events.get(wallet_id)
        in_tables = row and (row.version, row.balance, row.sent, row.overdraft_limit, row.status)
        in_events = state and (
            state.version,
            state.balance,
            state.sent,
            state.overdraft_limit,
            state.status,
        )
        if in_tables != in_events:
            sentences.append(
                f"Wallet {wallet_id} is {in_tables} in the tables and {in_events} in the events."
            )
    return sentences
