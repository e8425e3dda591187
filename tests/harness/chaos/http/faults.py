"""Faults under a load of HTTP requests: parts are frozen with SIGSTOP, killed with SIGKILL, or emptied."""

import asyncio
import shutil
import time
from collections.abc import Callable

from mercuria.embedded.part import Part
from mercuria.embedded.stack import Stack
from mercuria.redis.client import connect
from tests.harness.chaos.http.run import Faults, HttpRun
from tests.harness.chaos.suspension import suspend

BETWEEN_S = 2.0
"""For how long every request has to be answered between two faults."""


def stop(choose: Callable[[Stack], Part], for_s: float) -> Faults:
    """Return faults that freeze a server for a while."""

    async def inject(run: HttpRun) -> None:
        await freeze(run, choose(run.stack), for_s)

    return inject


def stop_worker(for_s: float) -> Faults:
    """Return faults that freeze one of the workers for a while."""

    async def inject(run: HttpRun) -> None:
        run.accept_loss()
        await freeze(run, run.random.choice(run.stack.workers), for_s)

    return inject


def kill_postgres(for_s: float) -> Faults:
    """Return faults that kill PostgreSQL, and start it again after a while."""

    async def inject(run: HttpRun) -> None:
        await kill(run, run.stack.postgres, for_s)

    return inject


def kill_redis(for_s: float) -> Faults:
    """Return faults that empty Redis under load, and then kill it, and start it again empty after a while."""

    async def inject(run: HttpRun) -> None:
        await flush(run)
        await run.wait_until_calm(BETWEEN_S)
        await kill(run, run.stack.redis, for_s, loses_data=True)

    return inject


async def freeze(run: HttpRun, part: Part, for_s: float) -> None:
    """Freeze a part, and let it go on after a while."""
    async with run.outage(f"{part.title} is frozen for {for_s:.0f} seconds."):
        await suspend(part, for_s)
    run.echo(f"{part.title} goes on.")


async def flush(run: HttpRun) -> None:
    """Empty Redis while it is used."""
    redis = connect(run.stack.env["MERCURIA_REDIS"])
    async with run.outage("Redis is emptied."):
        await redis.flushall()
    await redis.aclose()


async def kill(run: HttpRun, part: Part, for_s: float, *, loses_data: bool = False) -> None:
    """Kill a part, and start it again after a while, with its data or without."""
    async with run.outage(f"{part.title} is killed, and starts again after {for_s:.0f} seconds."):
        began_s = time.monotonic()
        part.supervised = False
        await asyncio.to_thread(part.kill)
        if loses_data:
            shutil.rmtree(part.directory.subdirectory(part.name))
        await asyncio.sleep(began_s + for_s - time.monotonic())
        await asyncio.to_thread(part.start)
        part.supervised = True
    run.echo(f"{part.title} is there again.")
