"""The audit of the projections, mostly from their topics: how transactions ended, and the ledger.

Every event on every topic is there once by its number, without a gap and, where it came again, with the same bytes;
each completed transaction has one debit and one credit; the chains are whole, and PostgreSQL has the same ones.
"""

import asyncio
import time
from collections import defaultdict
from contextlib import closing
from functools import partial
from typing import Any
from uuid import UUID

import psycopg2
from msgspec import Struct, field

from mercuria.cli.counted import compare_copies, wrong_counters
from mercuria.domain.events import NO_COMMAND, BalanceUpdated, CommandRejected
from mercuria.domain.ledger import NO_HASH, Entry, hash_after
from mercuria.domain.transaction import TransactionCompleted
from mercuria.embedded.stack import Stack
from mercuria.kafka.client import event_reader, read_log
from mercuria.kafka.cloudevents import read_event, read_numbered
from mercuria.postgres.database import Database, DatabaseUnavailable
from mercuria.projections.checkpoints import Positions
from mercuria.projections.ledger.snapshot import books
from mercuria.projections.registry import PROJECTIONS
from mercuria.redis.authenticity import Authenticity
from mercuria.topics import LEDGER_EVENTS, TRANSACTION_EVENTS, WALLET_EVENTS
from tests.harness.audit.violations import Violations
from tests.harness.errors import StalledError
from tests.harness.stacks import leg_key

WITHIN_S = 120.0
"""How long the projections may take to catch up with their topics."""
LOOK_EVERY_S = 0.2

MOVEMENTS = ("deposit", "withdraw", "transfer")
OUTBOXES = [flow.outbox for flow in PROJECTIONS.values() if flow.outbox is not None]


class ProjectionsAudit(Struct):
    """The findings. `duplicates` are events that came again, by topic; `violations` are the first ones."""

    completed: int = 0
    failed: int = 0
    entries: int = 0
    duplicates: dict[str, int] = field(default_factory=dict)
    violation_count: int = 0
    violations: list[str] = field(default_factory=list)


async def audit_projections(stack: Stack) -> ProjectionsAudit:
    """Wait until the projections have caught up, and check their topics, tables and counters.

    Raises:
        StalledError: they do not get there.
    """
    await _wait_until_caught_up(stack)
    violations = Violations()
    servers = stack.env["MERCURIA_KAFKA"]
    ends = await _ends(servers)
    transactions = await _numbered(servers, TRANSACTION_EVENTS, violations)
    ledger = await _numbered(servers, LEDGER_EVENTS, violations)
    for partition in ends.keys() | transactions.events.keys():
        offsets = [event.offset for event in transactions.events[partition]]
        if offsets != ends[partition]:
            violations.add(
                f"Partition {partition} has events of {len(offsets)} transactions, and {len(ends[partition])} ended,"
                " or in another order."
            )
    for partition in transactions.events.keys() | ledger.events.keys():
        _check_chain(partition, transactions.events[partition], ledger.events[partition], violations)
    _compare_entries(stack, ledger, violations)
    await _check_counters(stack, violations)
    completed = sum(
        type(event) is TransactionCompleted for events in transactions.events.values() for event in events
    )
    return ProjectionsAudit(
        completed=completed,
        failed=sum(map(len, transactions.events.values())) - completed,
        entries=sum(map(len, ledger.events.values())),
        duplicates={TRANSACTION_EVENTS: transactions.duplicates, LEDGER_EVENTS: ledger.duplicates},
        violation_count=violations.count,
        violations=violations.sentences,
    )


async def _check_counters(stack: Stack, violations: Violations) -> None:
    """Compare what analytics has counted with the ledger, and its copies with each other."""
    env = stack.env
    with books(env["MERCURIA_DATABASE"]) as found:
        for sentence in wrong_counters(found):
            violations.add(sentence)
    copies = await compare_copies(
        env["MERCURIA_DATABASE"],
        env["MERCURIA_KAFKA"],
        env["MERCURIA_REDIS"],
        Authenticity(partial(leg_key, stack)),
        int(env["MERCURIA_PARTITIONS"]),
    )
    for sentence in copies.differences:
        violations.add(sentence)


async def _wait_until_caught_up(stack: Stack) -> None:
    """Wait until all projections have caught up with their topics, and their outboxes are empty."""
    database = Database(stack.env["MERCURIA_DATABASE"])
    deadline_s = time.monotonic() + WITHIN_S
    try:
        for name, flow in PROJECTIONS.items():
            while not await _is_caught_up(database, name, flow.reads, stack.env["MERCURIA_KAFKA"]):
                if time.monotonic() > deadline_s:
                    raise StalledError(f"The projection {name} has not caught up within {WITHIN_S:.0f} s.")
        while True:
            rows = [await database.row(f"SELECT count(*) AS count FROM {table}") for table in OUTBOXES]
            if not any(row.count for row in rows if row is not None):
                return
            if time.monotonic() > deadline_s:
                raise StalledError(f"The outboxes are not empty after {WITHIN_S:.0f} s.")
            await asyncio.sleep(LOOK_EVERY_S)
    finally:
        await database.close()


async def _is_caught_up(database: Database, stage: str, topic: str, servers: str) -> bool:
    """Return whether a projection has all that its topic holds now."""
    async with event_reader(servers, topic) as reader:
        found = await reader.end_offsets(reader.assignment())
    ends = {tp.partition: end for tp, end in found.items()}
    try:
        return await Positions(database, stage).caught_up(ends, 2.0)
    except DatabaseUnavailable:
        # It is starting again.
        await asyncio.sleep(LOOK_EVERY_S)
        return False


async def _ends(servers: str) -> defaultdict[int, list[int]]:
    """Return by partition which records of the command topic ended a transaction, in order."""
    ends: defaultdict[int, list[int]] = defaultdict(list)
    last: dict[int, int] = {}
    async for record in read_log(servers, WALLET_EVENTS):
        event = read_event(record.value)
        if event.offset <= last.get(record.partition, -1):
            continue
        last[record.partition] = event.offset
        if type(event) is BalanceUpdated:
            is_end = event.transaction_status != "pending"
        else:
            is_end = (
                type(event) is CommandRejected
                and event.command_type in MOVEMENTS
                and event.command != NO_COMMAND
            )
        if is_end:
            ends[record.partition].append(event.offset)
    return ends


class _Numbered:
    """The events of a topic, each once, and how many came again."""

    def __init__(self) -> None:
        self.events: defaultdict[int, list[Any]] = defaultdict(list)
        self.duplicates = 0


async def _numbered(servers: str, topic: str, violations: Violations) -> _Numbered:
    found, contents = _Numbered(), defaultdict[int, list[int]](list)
    async for record in read_log(servers, topic):
        event, _ = read_numbered(record.value)
        known, content = contents[record.partition], hash((record.key, record.value))
        name = f"Event {record.partition}-{event.sequence} of {topic}"
        if event.sequence == len(known) + 1:
            known.append(content)
            found.events[record.partition].append(event)
        elif event.sequence > len(known):
            violations.add(f"{name} comes after {len(known)}: there is a gap.")
        else:
            found.duplicates += 1
            if known[event.sequence - 1] != content:
                violations.add(f"{name} came again with another content.")
    return found


def _check_chain(
    partition: int, transactions: list[Any], entries: list[Entry], violations: Violations
) -> None:
    """Check that completed transactions have their two entries, in order, and that these are a chain."""
    completed = [event for event in transactions if type(event) is TransactionCompleted]
    if len(entries) != 2 * len(completed):
        violations.add(f"Partition {partition} has {len(entries)} entries for {len(completed)} transactions.")
    previous = NO_HASH
    for number, entry in enumerate(entries):
        name = f"Entry {partition}-{entry.sequence}"
        previous = hash_after(
            previous,
            partition,
            number + 1,
            entry.transaction_id,
            entry.kind,
            entry.account,
            entry.direction,
            entry.amount,
            entry.currency,
            entry.balance_after,
            entry.wallet_version,
            entry.occurred_at_ms,
            entry.effective_at,
        )
        if entry.hash != previous.hex():
            violations.add(f"{name} has a hash that is not made of it and of what is before it.")
        if number // 2 < len(completed) and not _belongs(entry, completed[number // 2]):
            violations.add(f"{name} does not match its transaction {entry.transaction_id}.")


def _belongs(entry: Entry, event: TransactionCompleted) -> bool:
    is_debit = entry.sequence % 2 == 1
    side = event.from_wallet if is_debit else event.to_wallet
    external = "external:deposits" if is_debit else "external:withdrawals"
    return (
        entry.transaction_id,
        entry.direction,
        entry.amount,
        entry.currency,
        entry.account,
        entry.effective_at,
    ) == (
        event.transaction_id,
        "debit" if is_debit else "credit",
        event.amount,
        event.currency,
        external if side is None else str(side.wallet_id),
        event.effective_at,
    )


def _compare_entries(stack: Stack, ledger: _Numbered, violations: Violations) -> None:
    """Check that PostgreSQL has the same entries as the topic."""
    wanted = {
        (partition, entry.sequence): (entry.hash, entry.transaction_id)
        for partition, entries in ledger.events.items()
        for entry in entries
    }
    with (
        closing(psycopg2.connect(stack.env["MERCURIA_DATABASE"])) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(
            "SELECT partition, sequence, encode(hash, 'hex'), transaction_id::text FROM ledger_entries"
        )
        there = {(partition, sequence): (hash_, UUID(id_)) for partition, sequence, hash_, id_ in cursor}
    for partition, sequence in sorted(wanted.keys() | there.keys()):
        if wanted.get((partition, sequence)) != there.get((partition, sequence)):
            violations.add(f"Entry {partition}-{sequence} is not the same in PostgreSQL and in the topic.")
