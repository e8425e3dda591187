"""Workers are killed and frozen, Kafka is frozen and killed, all under load: nothing is lost, nothing is doubled.

Each test prints its seed; `make chaos ARGS="kill-workers --seed N"` repeats the commands and the moments.
"""

import asyncio
import secrets
import sys
import time
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest

from mercuria.embedded.stack import Stack
from tests.embedded.conftest import eventually
from tests.harness.audit.stack import audit_stack
from tests.harness.chaos.kafka.faults import freeze, kill, kill_workers, stop_kafka
from tests.harness.chaos.kafka.run import Faults, KafkaRun, Outcome
from tests.harness.errors import StalledError
from tests.harness.stacks import fresh_stack
from tests.protocol.kafka_client import open_kafka_client

PLANTED_WORKER = Path(__file__).with_name("planted_worker.py")


async def run_under_load(
    stack: Stack, faults: Faults | None, *, commands: int = 10_000, still_s: float = 90
) -> Outcome:
    """Make a run with a new seed, which is printed."""
    seed = secrets.randbelow(2**32)
    print(f"seed {seed}")
    run = KafkaRun(stack, seed=seed, commands=commands, rate_per_s=3000, echo=print, still_s=still_s)
    outcome = await run.run(faults)
    print(outcome)
    return outcome


@pytest.mark.timeout(300)
async def test_killed_workers_lose_and_double_nothing(live_stack: Stack) -> None:
    outcome = await run_under_load(live_stack, kill_workers(5), commands=60_000)
    assert outcome.audit.violations == []
    assert outcome.faults == 5 and outcome.audit.commands >= 60_000
    assert outcome.audit.transfers > 20_000 and outcome.audit.refunds > 0


async def test_a_frozen_and_a_killed_kafka_lose_and_double_nothing(live_stack: Stack) -> None:
    outcome = await run_under_load(live_stack, stop_kafka(5))
    assert outcome.audit.violations == []


async def test_a_worker_that_wakes_up_when_others_have_its_partitions_does_no_harm(live_stack: Stack) -> None:
    async def freeze_one(run: KafkaRun) -> None:
        await run.wait_for_answers(1000)
        # Its session in the group lives for 10 seconds.
        await freeze(run, run.random.choice(run.stack.workers), 14)
        await run.wait_for_answers(1000)

    outcome = await run_under_load(live_stack, freeze_one)
    assert outcome.audit.violations == []


async def kill_in_the_window(run: KafkaRun) -> None:
    """Kill the worker while a position is ahead of its outputs, as a worker with the bug says."""
    await run.wait_for_answers(500)
    await asyncio.to_thread(eventually, (run.stack.directory.path / "window").exists)
    await kill(run, run.stack.workers[0])


@pytest.mark.parametrize(
    ("bug", "faults"), [("position-first", kill_in_the_window), ("no-receipts", kill_workers(1))]
)
async def test_a_planted_bug_is_found(tmp_path: Path, bug: str, faults: Faults) -> None:
    command = (sys.executable, str(PLANTED_WORKER), bug)
    with fresh_stack(tmp_path, 1, print, worker_command=command) as stack:
        # What the bug lost is never answered.
        with suppress(StalledError):
            await run_under_load(stack, faults, commands=5_000, still_s=15)
        await assert_nothing_waits(stack)
        audit = await audit_stack(stack)
    print(*audit.violations, sep="\n")
    assert audit.violation_count > 0


async def assert_nothing_waits(stack: Stack) -> None:
    """Assert that all partitions answer: what is without an answer now does not just come later."""
    async with open_kafka_client(stack) as kafka_client:
        for partition in range(kafka_client.partitioner.partitions):
            await kafka_client.wallet(partition=partition)


async def test_workers_that_are_killed_during_their_first_start_do_no_harm(tmp_path: Path) -> None:
    seed = secrets.randbelow(2**32)
    print(f"seed {seed}")
    stack = fresh_stack(tmp_path, 2, print)
    killing = asyncio.create_task(asyncio.to_thread(kill_young_workers, stack, Random(seed)))
    await asyncio.to_thread(stack.start)
    try:
        await killing
        outcome = await run_under_load(stack, None, commands=3_000)
    finally:
        await asyncio.to_thread(stack.stop)
    assert outcome.audit.violations == []


def kill_young_workers(stack: Stack, random: Random) -> None:
    """Kill workers four times while they start for the first time."""
    eventually(lambda: len(stack.workers) == 2)
    for _ in range(4):
        time.sleep(random.uniform(0.3, 2.5))
        random.choice(stack.workers).kill()
