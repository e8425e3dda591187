"""Redis, PostgreSQL and workers are stopped and killed while clients use the HTTP API: their answers stay true.

Each test prints its seed; `make chaos ARGS="http … --seed N"` makes the same choices, with longer outages.
"""

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import msgspec
import pytest
from aiokafka import AIOKafkaProducer
from redis.asyncio import Redis

from mercuria.domain.commands import Deposit
from mercuria.domain.events import BalanceUpdated, CommandRejected
from mercuria.domain.parsing import read_command
from mercuria.embedded.stack import Stack
from mercuria.kafka.client import read_log
from mercuria.kafka.cloudevents import read_wallet_event
from mercuria.kafka.partitioning import Partitioner
from mercuria.redis.cache import LOCK_KEY
from mercuria.redis.client import connect
from mercuria.redis.leases import LIFE_S, RENEW_EVERY_S
from mercuria.topics import WALLET_COMMANDS, WALLET_EVENTS
from tests.conftest import SESSION_S
from tests.harness.chaos.http.duplicates import DuplicatesRun
from tests.harness.chaos.http.expectations import (
    Expectation,
    without_postgres,
    without_redis,
    without_worker,
)
from tests.harness.chaos.http.faults import BETWEEN_S, flush, freeze, kill
from tests.harness.chaos.http.outages import Outage, run_outage
from tests.harness.chaos.http.report import Outcome, format_counts
from tests.harness.chaos.http.run import Faults, HttpRun
from tests.harness.stacks import PARTITIONS
from tests.web.api_client import ApiClient, ApiClients, until

RATE_PER_S = 60
"""Requests come again until they are answered: on a slow machine, more would hold each other up without a fault."""
CALM_S = 2.0


async def run_under_load(stack: Stack, faults: Faults, expectation: Expectation) -> Outcome:
    """Make a run with a new seed, which is printed, and assert that nothing is wrong."""
    seed = secrets.randbelow(2**32)
    print(f"seed {seed}")
    run = HttpRun(stack, seed=seed, rate_per_s=RATE_PER_S, calm_s=CALM_S, echo=print)
    outcome = await run_outage(run, Outage(faults, expectation))
    for phase, kinds in outcome.asked.items():
        for kind, each in kinds.items():
            print(f"{phase}, {kind}: {format_counts(each.answers)}; the slowest in {each.slowest_s:.2f} s")
    assert outcome.violations == []
    return outcome


async def test_redis_that_is_emptied_and_killed_and_stopped_loses_and_ages_nothing(live_stack: Stack) -> None:
    async def inject(run: HttpRun) -> None:
        await flush(run)
        await run.wait_until_calm(BETWEEN_S)
        await kill(run, live_stack.redis, 3, loses_data=True)
        await run.wait_until_calm(BETWEEN_S)
        await freeze(run, live_stack.redis, LIFE_S + 4)

    outcome = await run_under_load(live_stack, inject, without_redis(LIFE_S + 4))
    # A balance may be as old as a lock whose owner has just renewed it.
    assert outcome.oldest_shown_s.get("after", 0.0) < 5


async def test_without_postgresql_money_moves_and_wallets_are_shown(live_stack: Stack) -> None:
    async def inject(run: HttpRun) -> None:
        await freeze(run, live_stack.postgres, 13)
        await run.wait_until_calm(BETWEEN_S)
        await kill(run, live_stack.postgres, 4)

    outcome = await run_under_load(live_stack, inject, without_postgres)
    assert outcome.unready == []


async def test_the_partitions_of_a_frozen_worker_are_taken_over_and_it_decides_no_more(
    live_stack: Stack, redis: Redis
) -> None:
    times_ms: list[float] = []
    await until(lambda: locks_of(redis), are_dealt_out)

    async def inject(run: HttpRun) -> None:
        run.accept_loss()
        frozen, other = run.random.sample(live_stack.workers, 2)
        generation = (await locks_of(redis))[0].generation
        async with run.outage(f"{frozen.title} is frozen."):
            times_ms.append(1000 * time.time())
            began_s = time.monotonic()
            frozen.suspend()
            try:
                await until(lambda: locks_of(redis), lambda locks: owners(locks) == {other.name})
                took_s = time.monotonic() - began_s
                assert all(each.generation > generation for each in await locks_of(redis))
                # Kafka may notice late; what came before has to be decided and kept when the frozen one goes on.
                await asyncio.sleep(max(SESSION_S, took_s) + 3 - took_s)
            finally:
                times_ms.append(1000 * time.time())
                frozen.resume()
        print(f"The other worker had all locks after {took_s:.1f} s.")
        await assert_no_lock_goes_back(redis, for_s=2 * RENEW_EVERY_S)

    await run_under_load(live_stack, inject, without_worker)
    # Before, it may have decided what was there, and died with it. What came last, the other one may have been deciding
    # when the two noticed each other; the frozen one would begin with what came first.
    first_ms, last_ms = times_ms[0] + 1000, times_ms[1] - 2000
    twice = [at_ms for at_ms in await decided_twice(live_stack) if first_ms < at_ms < last_ms]
    assert twice == []
    await until(lambda: locks_of(redis), are_dealt_out)


async def test_a_lock_of_a_newer_generation_holds_up_its_partition_and_no_other(
    live_stack: Stack, redis: Redis, zoe: ApiClient
) -> None:
    partitioner = Partitioner(PARTITIONS)
    wallets = {
        partitioner.of(UUID(each)).partition: each for each in [await zoe.wallet(1) for _ in range(30)]
    }
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


async def test_an_old_lock_holds_up_nothing(live_stack: Stack, redis: Redis, zoe: ApiClient) -> None:
    wallet_id = await zoe.wallet()
    locks = await locks_of(redis)
    for partition in range(PARTITIONS):
        await redis.set(LOCK_KEY.format(partition), "0:nobody", px=600_000)
    await until(lambda: locks_of(redis), lambda found: found == locks)
    assert (await zoe.deposit(wallet_id, 1)).status == 201


async def test_a_transaction_that_was_promised_is_never_unknown(
    live_stack: Stack, redis: Redis, clients: ApiClients
) -> None:
    zoe = clients.user()
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


async def test_what_ends_with_the_mark_of_a_transaction_is_read_to_its_end(
    live_stack: Stack, zoe: ApiClient
) -> None:
    # Any producer may write commands, also one that uses Kafka's transactions.
    producer = AIOKafkaProducer(
        bootstrap_servers=live_stack.env["MERCURIA_KAFKA"], transactional_id=str(uuid4())
    )
    wallet_id = UUID(await zoe.wallet())
    route = Partitioner(PARTITIONS).of(wallet_id)
    await producer.start()
    async with producer.transaction():
        command = msgspec.json.encode(Deposit(id=uuid4(), wallet_id=wallet_id, amount=7))
        await producer.send(WALLET_COMMANDS, command, key=route.key, partition=route.partition)
    await producer.stop()
    for worker in (0, 1):
        found = await zoe.get(f"/wallets/{wallet_id}?consistency=strong", worker=worker)
        assert (found.status, found.document["balance"]) == (200, 7)
        unknown = await zoe.get(f"/transactions/{uuid4()}", worker=worker)
        assert (unknown.status, unknown.code) == (404, "transaction_not_found")


async def test_copies_of_requests_have_one_answer_and_one_effect_although_a_worker_is_killed(
    live_stack: Stack,
) -> None:
    seed = secrets.randbelow(2**32)
    print(f"seed {seed}")
    outcome = await DuplicatesRun(live_stack, seed=seed, keys=500, copies=4, echo=print).run()
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


def owners(locks: list[Lock]) -> set[str]:
    """Return who has locks."""
    return {each.owner for each in locks}


def are_dealt_out(locks: list[Lock]) -> bool:
    """Return whether both workers have locks, in one generation."""
    return owners(locks) == {"worker-1", "worker-2"} and len({each.generation for each in locks}) == 1


async def assert_no_lock_goes_back(redis: Redis, *, for_s: float) -> None:
    """Assert that for a while no older generation takes a lock from a newer one."""
    newest = [each.generation for each in await locks_of(redis)]
    ends_s = time.monotonic() + for_s
    while time.monotonic() < ends_s:
        now = [each.generation for each in await locks_of(redis)]
        assert all(after >= before for before, after in zip(newest, now, strict=True)), (newest, now)
        newest = now
        await asyncio.sleep(0.01)


async def decided_twice(stack: Stack) -> list[int]:
    """Return when those records came to Kafka that were decided more often than they were sent, in ms."""
    servers = stack.env["MERCURIA_KAFKA"]
    sent: Counter[UUID] = Counter()
    async for record in read_log(servers, WALLET_COMMANDS):
        command = read_command(record.value)
        if (id_ := getattr(command, "id", None)) is not None:
            sent[id_] += 1
    told: Counter[tuple[int, int]] = Counter()
    may: dict[tuple[int, int], int] = {}
    times_ms: dict[tuple[int, int], int] = {}
    async for record in read_log(servers, WALLET_EVENTS):
        event, time_ms = read_wallet_event(record.value)
        at = record.partition, event.offset
        told[at] += 1
        times_ms[at] = time_ms
        may[at] = times_of(event, sent)
    return [times_ms[at] for at, times in told.items() if times > may[at]]


def times_of(event: object, sent: Counter[UUID]) -> int:
    """Return how often an event may come: once for a leg, else as often as its command was sent."""
    if isinstance(event, BalanceUpdated):
        is_leg = event.kind == "transfer" and event.transaction_status != "pending"
        return 1 if is_leg else sent[event.transaction_id]
    if isinstance(event, CommandRejected) and event.command_type in ("credit", "refund", "forwarded"):
        return 1
    return sent[event.command_id]  # type: ignore[attr-defined]
