"""The faults of a soak, one part after the other."""

from collections.abc import Awaitable, Callable, Iterator
from random import Random

from tests.harness.chaos.http.faults import freeze, kill
from tests.harness.chaos.http.run import HttpRun

AWAY_S = (0.0, 5.0)
"""How long a part is away that was killed."""
FROZEN_S = (2.0, 15.0)
"""How long a worker is frozen: shorter and longer than the 10 s after which Kafka gives its partitions to others."""

Fault = Callable[[HttpRun, Random], Awaitable[None]]


async def kill_worker(run: HttpRun, random: Random) -> None:
    """Kill a worker."""
    await kill(run, random.choice(run.stack.workers), random.uniform(*AWAY_S))


async def freeze_worker(run: HttpRun, random: Random) -> None:
    """Freeze a worker for a while."""
    await freeze(run, random.choice(run.stack.workers), random.uniform(*FROZEN_S))


async def kill_postgres(run: HttpRun, random: Random) -> None:
    """Kill PostgreSQL."""
    await kill(run, run.stack.postgres, random.uniform(*AWAY_S))


async def kill_redis(run: HttpRun, random: Random) -> None:
    """Kill Redis, which comes back empty."""
    await kill(run, run.stack.redis, random.uniform(*AWAY_S), loses_data=True)


async def kill_kafka(run: HttpRun, random: Random) -> None:
    """Kill Kafka."""
    await kill(run, run.stack.kafka, random.uniform(*AWAY_S))


FAULTS: dict[str, Fault] = {
    "worker killed": kill_worker,
    "worker frozen": freeze_worker,
    "PostgreSQL killed": kill_postgres,
    "Redis killed and emptied": kill_redis,
    "Kafka killed": kill_kafka,
}


def in_turn(random: Random) -> Iterator[str]:
    """Yield names of faults without end: all of them in some order, and then again in another one."""
    while True:
        names = list(FAULTS)
        random.shuffle(names)
        yield from names
