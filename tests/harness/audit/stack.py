"""The audit of a whole stack at rest: its logs from their beginning, and the workers' tables against the events."""

import time
from collections.abc import Set
from typing import Any
from uuid import UUID

from mercuria.domain.wallet import Wallet
from mercuria.embedded.stack import Stack
from mercuria.kafka.client import event_reader, read_log
from mercuria.kafka.sealing import Seal
from mercuria.kafka.skips import all_skips
from mercuria.tables.balance_rows import read_rows
from mercuria.topics import BALANCES_CHANGELOG, WALLET_COMMANDS, WALLET_EVENTS
from tests.harness.audit.auditor import Audit, Auditor
from tests.harness.audit.money import WalletState
from tests.harness.audit.violations import Violations
from tests.harness.errors import StalledError
from tests.harness.stacks import leg_key

TABLES_WITHIN_S = 30.0


async def audit_stack(stack: Stack) -> Audit:
    """Audit the logs of a stack from their beginning, and compare the tables with the events."""
    servers = stack.env["MERCURIA_KAFKA"]
    skips = [skip async for skip in all_skips(servers) if skip.topic == WALLET_COMMANDS]
    auditor = stack_auditor(stack, Violations(), {(skip.partition, skip.offset) for skip in skips})
    decided = dict.fromkeys(range(int(stack.env["MERCURIA_PARTITIONS"])), -1)
    async for record in read_log(servers, WALLET_COMMANDS):
        decided[record.partition] = record.offset
        take_record(auditor, record)
    async for record in read_log(servers, WALLET_EVENTS):
        take_record(auditor, record)
    tables = await tables_after(servers, decided)
    for sentence in differences(tables, auditor.wallets):
        auditor.violations.add(sentence)
    return auditor.report()


def stack_auditor(
    stack: Stack, violations: Violations, skipped: Set[tuple[int, int]] = frozenset()
) -> Auditor:
    """Return an auditor of a stack's logs, which adds what is wrong to `violations`."""
    partitions, seal = int(stack.env["MERCURIA_PARTITIONS"]), Seal(leg_key(stack))
    return Auditor(partitions, seal, violations=violations, skipped=skipped)


def take_record(auditor: Auditor, record: Any) -> None:
    """Pass the next record of one of the logs to an auditor."""
    if record.topic == WALLET_COMMANDS:
        auditor.take_command(
            record.partition, record.offset, record.value, key=record.key, time_ms=record.timestamp
        )
    else:
        auditor.take_event(record.partition, record.offset, record.value, key=record.key)


async def tables_after(servers: str, decided: dict[int, int]) -> dict[UUID, Wallet]:
    """Return the wallets in the tables, as soon as these hold all commands up to the offsets `decided`.

    They are read from the changelog, as a worker without its directory does.

    Raises:
        StalledError: they do not get there.
    """
    wallets: dict[UUID, Wallet] = {}
    missing = {partition for partition, offset in decided.items() if offset >= 0}
    deadline_s = time.monotonic() + TABLES_WITHIN_S
    async with event_reader(servers, BALANCES_CHANGELOG, from_beginning=True) as reader:
        while missing:
            if time.monotonic() > deadline_s:
                raise StalledError(
                    f"The tables of the partitions {sorted(missing)} do not hold all commands."
                )
            for tp, records in (await reader.getmany(timeout_ms=100, max_records=5000)).items():
                for row in read_rows((record.key, record.value) for record in records):
                    if not isinstance(row, Wallet):
                        missing -= {tp.partition} if row.offset >= decided[tp.partition] else set()
                    elif row.id not in wallets or row.version >= wallets[row.id].version:
                        wallets[row.id] = row
    return wallets


def differences(tables: dict[UUID, Wallet], events: dict[UUID, WalletState]) -> list[str]:
    """Return in which wallets the tables and the events differ."""
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
