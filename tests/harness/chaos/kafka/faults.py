"""Faults under a load of commands: parts are killed with SIGKILL or frozen with SIGSTOP."""

import asyncio

from mercuria.embedded.part import Part
from tests.harness.chaos.kafka.run import Faults, KafkaRun
from tests.harness.chaos.suspension import suspend


def kill_workers(kills: int) -> Faults:
    """Return faults that kill a worker with SIGKILL at random moments, busy or while it recovers."""

    async def inject(run: KafkaRun) -> None:
        for _ in range(kills):
            # Mostly while it works; now and then while it starts or recovers.
            if run.random.random() < 0.8:
                await run.wait_for_answers(run.random.randint(1, 2 * run.commands // kills))
            else:
                await asyncio.sleep(run.random.uniform(0.5, 5))
            await kill(run, run.random.choice(run.stack.workers))

    return inject


def stop_kafka(stop_s: float) -> Faults:
    """Return faults that freeze Kafka for a while, and then kill it; the stack starts it again."""

    async def inject(run: KafkaRun) -> None:
        await run.wait_for_answers(run.commands // 4)
        await freeze(run, run.stack.kafka, stop_s)
        await run.wait_for_answers(run.commands // 4)
        await kill(run, run.stack.kafka)
        await run.wait_for_answers(run.commands // 4)

    return inject


def kill_all_kinds(kills: int) -> Faults:
    """Return faults that kill workers, PostgreSQL and Kafka with SIGKILL at random moments."""

    async def inject(run: KafkaRun) -> None:
        stack = run.stack
        for _ in range(kills):
            await run.wait_for_answers(run.random.randint(1, 2 * run.commands // kills))
            # The stack gives up a part that is killed again and again while it starts.
            parts = [each for each in (stack.postgres, stack.kafka, *stack.workers) if each.was_ready]
            if parts:
                await kill(run, run.random.choice(parts))

    return inject


async def kill(run: KafkaRun, part: Part) -> None:
    """Kill a part; the stack starts it again."""
    run.echo(f"{part.title} is killed.")
    run.fault_count += 1
    await asyncio.to_thread(part.kill)


async def freeze(run: KafkaRun, part: Part, for_s: float) -> None:
    """Freeze a part, and let it go on after a while."""
    run.echo(f"{part.title} is frozen for {for_s:.0f} seconds.")
    run.fault_count += 1
    await suspend(part, for_s)
    run.echo(f"{part.title} goes on.")
