"""On a whole stack: PostgreSQL comes to what the log and the workers' tables say, whatever is killed meanwhile."""

import asyncio
import json
import subprocess
import sys
from collections import Counter
from random import randrange

import pytest

from mercuria.embedded.stack import Stack
from mercuria.kafka.client import event_reader, read_log
from mercuria.postgres.database import Database
from mercuria.projections.wallets.queries import History
from mercuria.topics import WALLET_EVENTS
from tests.embedded.conftest import clean_environ, eventually
from tests.harness.audit.projections import audit_projections
from tests.harness.audit.stack import audit_stack
from tests.harness.chaos.kafka.faults import freeze, kill, kill_all_kinds, kill_workers
from tests.harness.chaos.kafka.run import Faults, KafkaRun
from tests.projections.conftest import empty
from tests.projections.model import Model, Tables, read_tables

WITHIN_S = 60.0


def run_on(stack: Stack, commands: int = 4000, rate_per_s: float = 1500) -> KafkaRun:
    """Return a run with a new seed, which is printed."""
    seed = randrange(2**32)
    print(f"seed {seed}")
    return KafkaRun(stack, seed=seed, commands=commands, rate_per_s=rate_per_s, wallets=60)


async def ends_of(stack: Stack) -> dict[int, int]:
    """Return where the event topic ends."""
    async with event_reader(stack.env["MERCURIA_KAFKA"], WALLET_EVENTS) as reader:
        ends = await reader.end_offsets(reader.assignment())
        return {tp.partition: end for tp, end in ends.items()}


async def tables_of(stack: Stack) -> Tables:
    """Return PostgreSQL's tables when they hold all that the log has now."""
    # It may be starting again.
    await asyncio.to_thread(eventually, stack.postgres.is_ready)
    database = Database(stack.env["MERCURIA_DATABASE"])
    assert await History(database).caught_up(await ends_of(stack), WITHIN_S)
    await database.close()
    return read_tables(stack.env["MERCURIA_DATABASE"])


async def model_of(stack: Stack) -> Model:
    """Return what has to become of the log."""
    model = Model()
    async for record in read_log(stack.env["MERCURIA_KAFKA"], WALLET_EVENTS):
        model.take(record.partition, record.value)
    return model


async def assert_all_is_there(stack: Stack) -> None:
    there = await tables_of(stack)
    model = (await model_of(stack)).comparable()
    # One by one, since the whole would take minutes to print where it differs.
    assert there.wallets == model.wallets
    assert there.events == model.events
    assert there.transactions == model.transactions


async def test_postgresql_has_what_the_tables_and_the_auditor_have(live_stack: Stack) -> None:
    await run_on(live_stack).run()
    there = await tables_of(live_stack)
    await assert_all_is_there(live_stack)
    balances = {str(wallet.id): wallet.balance for wallet in there.wallets.values()}
    # A worker writes its files a moment after it has answered.
    await asyncio.to_thread(eventually, lambda: listed(live_stack) == balances)
    audit = await audit_stack(live_stack)
    assert audit.violations == []
    moved = Counter(
        (each.kind, each.status) for each, is_refused in there.transactions.values() if not is_refused
    )
    assert moved["transfer", "pending"] == 0
    assert moved["transfer", "failed"] == audit.refunds
    assert moved["transfer", "completed"] == audit.transfers - audit.refunds
    for currency, totals in audit.totals.items():
        held = [wallet.balance for wallet in there.wallets.values() if wallet.currency == currency]
        assert sum(held) == totals.balances


def listed(stack: Stack) -> dict[str, int]:
    """Return the balances that `mercuria wallet list` shows, which has them from the workers' tables."""
    run = subprocess.run(
        [sys.executable, "-m", "mercuria", "wallet", "list", "--json", "--limit", "1000000"],
        env=clean_environ() | stack.env,
        capture_output=True,
        check=True,
    )
    return {wallet["id"]: wallet["balance"] for wallet in json.loads(run.stdout)}


async def frozen_postgresql(run: KafkaRun) -> None:
    """Freeze PostgreSQL; commands are decided meanwhile."""
    postgres = run.stack.postgres
    freezing = asyncio.create_task(freeze(run, postgres, 4))
    await run.wait_for_answers(500)
    assert not freezing.done(), "nobody waits for PostgreSQL to decide"
    await freezing


async def killed_postgresql(run: KafkaRun) -> None:
    """Kill PostgreSQL now and then; the stack starts it again."""
    for _ in range(3):
        await run.wait_for_answers(500)
        await kill(run, run.stack.postgres)


async def workers_without_postgresql(run: KafkaRun) -> None:
    """Stop PostgreSQL, and have the partitions dealt out while it is away."""
    await run.wait_for_answers(300)
    await asyncio.to_thread(run.stack.postgres.stop)
    try:
        # Long enough for Faust to commit what is not written yet: it has to be read again.
        await run.wait_for_answers(3000)
        await kill(run, run.stack.workers[0])
        # Long enough for the others to take over, and for the killed one to come back.
        await run.wait_for_answers(5000)
    finally:
        await asyncio.to_thread(run.stack.postgres.start)


@pytest.mark.parametrize(
    "faults",
    [kill_workers(2), frozen_postgresql, killed_postgresql, workers_without_postgresql, kill_all_kinds(4)],
    ids=[
        "killed workers",
        "frozen PostgreSQL",
        "killed PostgreSQL",
        "rebalanced without PostgreSQL",
        "killed servers of all kinds",
    ],
)
async def test_postgresql_comes_to_the_same_whatever_is_killed(live_stack: Stack, faults: Faults) -> None:
    outcome = await run_on(live_stack).run(faults)
    assert outcome.audit.violations == []
    await assert_all_is_there(live_stack)
    stages = await audit_projections(live_stack)
    assert stages.violations == []
    assert stages.entries == 2 * stages.completed > 0


async def test_tables_that_are_emptied_are_filled_again_although_nothing_happens(live_stack: Stack) -> None:
    await assert_all_is_there(live_stack)
    empty(live_stack.env["MERCURIA_DATABASE"])
    await assert_all_is_there(live_stack)
