"""Redis, PostgreSQL and workers are stopped and killed while people use the HTTP API: what is answered stays true.

Each test prints its seed; `mercuria chaos http --seed N` makes the same choices, with longer outages.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import pytest
from redis.asyncio import Redis

from mercuria.adapters.cache import LOCK_KEY
from mercuria.adapters.redis import connect
from mercuria.cli.chaos import PARTITIONS
from mercuria.cli.chaos.copies import Copies
from mercuria.cli.chaos.outages import (
    BETWEEN_S,
    Expectation,
    Outage,
    besiege,
    flush,
    freeze,
    kill,
    shown,
    without_postgres,
    without_redis,
)
from mercuria.cli.chaos.siege import Faults, Outcome, Siege
from mercuria.embedded.stack import Stack
from mercuria.streams.locks import LIFE_S, RENEW_EVERY_S
from mercuria.streams.routing import Homes
from tests.web.people import People, Person, until

RATE_PER_S = 120
CALM_S = 2.0


async def siege(stack: Stack, faults: Faults, faults_of: Expectation) -> Outcome:
    """Besiege a stack with a new seed, which is printed, and assert that nothing is wrong."""
    seed = secrets.randbelow(2**32)
    print(f"seed {seed}")
    besieged = Siege(stack, seed=seed, rate_per_s=RATE_PER_S, calm_s=CALM_S, tell=print)
    outcome = await besiege(besieged, Outage(faults, faults_of))
    for phase, asked in outcome.asked.items():
        for what, each in asked.items():
            print(f"{phase}, {what}: {shown(each.answers)}; the slowest in {each.slowest_s:.2f} s")
    assert outcome.violations == []
    return outcome


async def test_redis_that_is_emptied_and_killed_and_stopped_loses_and_ages_nothing(live_stack: Stack) -> None:
    async def strike(siege: Siege) -> None:
        await flush(siege)
        await siege.calm(BETWEEN_S)
        await kill(siege, live_stack.redis, 3, loses_data=True)
        await siege.calm(BETWEEN_S)
        await freeze(siege, live_stack.redis, LIFE_S + 4)

    outcome = await siege(live_stack, strike, without_redis(LIFE_S + 4))
    # A balance may be as old as a lock whose owner has just renewed it.
    assert outcome.oldest_shown_s.get("after", 0.0) < 5


async def test_without_postgresql_money_moves_and_wallets_are_shown(live_stack: Stack) -> None:
    async def strike(siege: Siege) -> None:
        await freeze(siege, live_stack.postgres, 13)
        await siege.calm(BETWEEN_S)
        await kill(siege, live_stack.postgres, 4)

    outcome = await siege(live_stack, strike, without_postgres)
    assert outcome.unready == []


async def test_a_lock_of_a_newer_generation_holds_up_its_partition_and_no_other(
    live_stack: Stack, redis: Redis, zoe: Person
) -> None:
    homes = Homes(PARTITIONS)
    wallets = {homes.of(UUID(each)).partition: each for each in [await zoe.wallet(1) for _ in range(30)]}
    (held, wallet_id), (_, other_id) = list(wallets.items())[:2]
    lock = (await locks_of(redis))[held]
    await redis.set(LOCK_KEY.format(held), f"{lock.generation + 100}:nobody", px=6000)
    began_s = time.monotonic()
    # Until its next renewal, the owner relies on the lock that it had.
    await asyncio.sleep(RENEW_EVERY_S + 0.5)
    waiting = asyncio.create_task(zoe.deposit(wallet_id, 1, prefer="wait=15"))
    assert (await zoe.deposit(other_id, 1)).status == 201
    assert (await waiting).status == 201
    assert 5 < time.monotonic() - began_s < 10
    assert (await locks_of(redis))[held].owner == lock.owner


async def test_an_old_lock_holds_up_nothing(live_stack: Stack, redis: Redis, zoe: Person) -> None:
    wallet_id = await zoe.wallet()
    locks = await locks_of(redis)
    for partition in range(PARTITIONS):
        await redis.set(LOCK_KEY.format(partition), "0:nobody", px=600_000)
    await until(lambda: locks_of(redis), lambda found: found == locks)
    assert (await zoe.deposit(wallet_id, 1)).status == 201


async def test_a_transaction_that_was_promised_is_never_unknown(
    live_stack: Stack, redis: Redis, people: People
) -> None:
    zoe = people.user()
    wallet_id = await zoe.wallet()
    for number in range(30):
        promised = await zoe.deposit(wallet_id, 1, prefer="respond-async", worker=number % 2)
        assert promised.status == 202
        # Whatever Redis knew of it is gone, and PostgreSQL does not have it yet.
        await redis.flushall()
        path = f"/transactions/{promised.document['id']}"
        for worker in (0, 1):
            found = await zoe.get(path, worker=worker)
            assert (found.status, found.document["status"]) == (200, "completed"), found
    unknown = await zoe.get(f"/transactions/{uuid4()}")
    assert (unknown.status, unknown.code) == (404, "transaction_not_found")


async def test_copies_of_requests_have_one_answer_and_one_effect_although_a_worker_is_killed(
    live_stack: Stack,
) -> None:
    seed = secrets.randbelow(2**32)
    print(f"seed {seed}")
    outcome = await Copies(live_stack, seed=seed, keys=500, copies=4, tell=print).run()
    print(outcome)
    assert outcome.violations == []
    assert outcome.requests == 2000 and outcome.replayed >= 1500


# Locks, and who decides.


class Lock:
    """What stands in the lock of a partition."""

    def __init__(self, value: bytes) -> None:
        generation, _, self.owner = value.decode().partition(":")
        self.generation = int(generation or -1)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Lock) and vars(self) == vars(other)

    def __repr__(self) -> str:
        return f"{self.generation}:{self.owner}"


@pytest.fixture
async def redis(live_stack: Stack) -> AsyncIterator[Redis]:
    """Return a client of the shared stack's Redis."""
    client = connect(live_stack.env["MERCURIA_REDIS"])
    yield client
    await client.aclose()


async def locks_of(redis: Redis) -> list[Lock]:
    """Return the locks of all partitions."""
    return [Lock(value or b"") for value in await redis.mget(map(LOCK_KEY.format, range(PARTITIONS)))]
