"""Strikes: what breaks in a soak, one part after the other."""

from collections.abc import Awaitable, Callable, Iterator
from random import Random

from tests.harness.chaos.outages import freeze, kill
from tests.harness.chaos.siege import Siege

AWAY_S = (0.0, 5.0)
"""How long a part is away that was killed."""
FROZEN_S = (2.0, 15.0)
"""How long a worker is frozen: shorter and longer than the 10 s after which Kafka gives its partitions to others."""

Strike = Callable[[Siege, Random], Awaitable[None]]


async def kill_worker(siege: Siege, random: Random) -> None:
    """Kill a worker."""
    await kill(siege, random.choice(siege.stack.workers), random.uniform(*AWAY_S))


async def freeze_worker(siege: Siege, random: Random) -> None:
    """Freeze a worker for a while."""
    await freeze(siege, random.choice(siege.stack.workers), random.uniform(*FROZEN_S))


async def kill_postgres(siege: Siege, random: Random) -> None:
    """Kill PostgreSQL."""
    await kill(siege, siege.stack.postgres, random.uniform(*AWAY_S))


async def kill_redis(siege: Siege, random: Random) -> None:
    """Kill Redis, which comes back empty."""
    await kill(siege, siege.stack.redis, random.uniform(*AWAY_S), loses_data=True)


async def kill_kafka(siege: Siege, random: Random) -> None:
    """Kill Kafka."""
    await kill(siege, siege.stack.kafka, random.uniform(*AWAY_S))


STRIKES: dict[str, Strike] = {
    "worker killed": kill_worker,
    "worker frozen": freeze_worker,
    "PostgreSQL killed": kill_postgres,
    "Redis killed and emptied": kill_redis,
    "Kafka killed": kill_kafka,
}


def in_turn(random: Random) -> Iterator[str]:
    """Yield names of strikes without end: all of them in some order, and then again in another one."""
    while True:
        names = list(STRIKES)
        random.shuffle(names)
        yield from names
