"""The cache: what it shows of a wallet is never old, whatever becomes of Redis."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from uuid import UUID, uuid4

import pytest
from msgspec.structs import replace
from redis.asyncio import Redis as Client

from mercuria.domain.commands import Position
from mercuria.domain.transaction import Transaction
from mercuria.domain.wallet import Wallet
from mercuria.embedded.redis import Redis
from mercuria.redis.announcer import MAX_CACHED_WALLETS, Announcement, Announcer
from mercuria.redis.authenticity import Authenticity
from mercuria.redis.cache import EPOCH_KEY, FRESH_S, Balances, Cache
from mercuria.redis.client import POOL_SIZE, UNAVAILABLE
from mercuria.redis.leases import PartitionLocks
from mercuria.redis.replies import Replies
from tests.redis.conftest import Files, away, stopped, until

ID = UUID("5f0f7a0e-6a0e-4b1c-9d7e-1f2d3c4b5a69")
LOCK = "mercuria:lock:wallets:3"
AUTHENTICITY = Authenticity(lambda: bytes(32))


def wallet(version: int, id_: UUID = ID) -> Wallet:
    """Return a wallet at a version."""
    return Wallet(id_, uuid4(), "EUR", 100 * version, 0, 0, "open", version, {}, 1, version)


@pytest.fixture
async def cache(redis: Client) -> Cache:
    """Return an empty cache, in which the epoch of partition 3 is 7."""
    process = (await redis.info("server"))["run_id"]
    await redis.set(f"{EPOCH_KEY.format(3)}:{process}", 7)
    return Cache(redis, AUTHENTICITY)


async def shown(cache: Cache) -> int | None:
    """Return the version of the wallet that is shown as fresh."""
    cached = await cache.wallet(3, ID)
    return cached.wallet.version if cached is not None and cached.is_fresh else None


# Versions and epochs.


async def test_an_older_version_never_overwrites_a_newer_one(redis: Client, cache: Cache) -> None:
    await redis.set(LOCK, "1:worker-1", px=10_000)
    for version in (9, 10, 2, 9, 10):
        await cache.remember([Balances(3, 7, [wallet(version)])], [])
    assert await shown(cache) == 10


async def test_a_new_epoch_forgets_all_and_an_old_one_is_not_heard(redis: Client, cache: Cache) -> None:
    await redis.set(LOCK, "1:worker-1", px=10_000)
    await cache.remember([Balances(3, 7, [wallet(5)])], [])
    await cache.remember([Balances(3, 8, [])], [])
    assert await cache.wallet(3, ID) is None
    await cache.remember([Balances(3, 7, [wallet(6)])], [])
    assert await cache.wallet(3, ID) is None
    await cache.remember([Balances(3, 8, [wallet(4)])], [])
    assert await shown(cache) == 4


async def test_what_is_cached_is_fresh_only_while_the_lock_is_renewed(redis: Client, cache: Cache) -> None:
    await cache.remember([Balances(3, 7, [wallet(5)])], [])
    for life_ms, version in ((9_900, 5), (int(1000 * (10 - FRESH_S)) - 100, None), (1, None)):
        await redis.set(LOCK, "1:worker-1", px=life_ms)
        assert await shown(cache) == version
    await redis.delete(LOCK)
    assert await shown(cache) is None
    # Who finds nothing newer may still have it.
    cached = await cache.wallet(3, ID)
    assert cached is not None and cached.wallet.version == 5


async def test_many_read_at_once(redis: Client, cache: Cache) -> None:
    ids = [uuid4() for _ in range(10 * POOL_SIZE)]
    await redis.set(LOCK, "1:worker-1", px=10_000)
    await cache.remember([Balances(3, 7, [wallet(n + 1, id_) for n, id_ in enumerate(ids)])], [])
    found = await asyncio.gather(*(cache.wallet(3, id_) for id_ in ids))
    assert [each and each.wallet.version for each in found] == list(range(1, len(ids) + 1))


# Transactions.


async def test_who_is_late_does_not_overwrite_how_a_transaction_ended(cache: Cache) -> None:
    pending = Transaction(
        id=uuid4(),
        initiated=Position(-1, -1, 0),
        kind="deposit",
        status="pending",
        from_wallet_id=None,
        to_wallet_id=ID,
        amount=1,
        currency=None,
        reference=None,
        metadata={},
    )
    await cache.remember_pending(pending)
    assert await cache.transaction(pending.id) == pending
    completed = replace(pending, status="completed")
    await cache.remember([], [completed])
    await cache.remember_pending(pending)
    assert await cache.transaction(pending.id) == completed


# An owner who announces what it decides.


class Owner:
    """Who owns partition 3, and announces."""

    def __init__(self, server: Redis, redis: Client) -> None:
        self.locks = PartitionLocks(redis, "worker-1", lambda: 1, lambda: [3])
        self.announcer = Announcer(Cache(redis, AUTHENTICITY), self.locks, Replies(server.url))

    def decide(self, *wallets: Wallet) -> None:
        """Announce wallets."""
        self.announcer.announce(Announcement(3, wallets, []))


@pytest.fixture
async def owner(server: Redis, redis: Client) -> AsyncIterator[Owner]:
    """Return an owner who has its lock."""
    made = Owner(server, redis)
    async with made.locks, made.announcer:
        await until(lambda: made.locks.is_held(3))
        yield made


async def test_what_was_decided_is_shown(owner: Owner, cache: Cache) -> None:
    for version in range(1, 20):
        owner.decide(wallet(version))
        await until(lambda least=version: is_shown(cache, least))  # type: ignore[misc]


async def test_a_batch_of_many_wallets_leaves_nothing_old(owner: Owner, cache: Cache) -> None:
    owner.decide(wallet(1))
    await until(lambda: is_shown(cache, 1))
    owner.decide(wallet(2), *(wallet(1, uuid4()) for _ in range(MAX_CACHED_WALLETS)))
    await until(lambda: is_gone(cache))
    owner.decide(wallet(3))
    await until(lambda: is_shown(cache, 3))


@pytest.mark.parametrize("for_s", [0.5, 4.0])
async def test_nothing_old_is_shown_after_redis_has_stopped(
    server: Redis, owner: Owner, cache: Cache, for_s: float
) -> None:
    owner.decide(wallet(1))
    await until(lambda: is_shown(cache, 1))
    with stopped(server):
        owner.decide(wallet(2))
        await asyncio.sleep(for_s)
    await assert_nothing_older(cache, 2, for_s=FRESH_S + 2)
    owner.decide(wallet(3))
    await until(lambda: is_shown(cache, 3))


async def test_nothing_old_is_shown_after_redis_was_killed(server: Redis, owner: Owner, cache: Cache) -> None:
    owner.decide(wallet(1))
    await until(lambda: is_shown(cache, 1))
    with away(server):
        owner.decide(wallet(2))
        await asyncio.sleep(0.5)
    await assert_nothing_older(cache, 2, for_s=FRESH_S + 2)
    owner.decide(wallet(3))
    await until(lambda: is_shown(cache, 3))


async def test_nothing_old_is_shown_by_a_redis_that_knows_what_it_once_knew(
    server: Redis, owner: Owner, cache: Cache, files: Files
) -> None:
    owner.decide(wallet(1))
    await until(lambda: is_shown(cache, 1))
    files.keep()
    owner.decide(wallet(2))
    await until(lambda: is_shown(cache, 2))
    # What it has kept of the lock is no longer fresh when it comes back.
    await asyncio.sleep(FRESH_S)
    await asyncio.to_thread(files.set_back)
    await assert_nothing_older(cache, 2, for_s=FRESH_S + 2)
    owner.decide(wallet(3))
    await until(lambda: is_shown(cache, 3))


async def test_an_emptied_redis_shows_nothing_old(redis: Client, owner: Owner, cache: Cache) -> None:
    owner.decide(wallet(1))
    await until(lambda: is_shown(cache, 1))
    await redis.flushall()
    owner.decide(wallet(2))
    await assert_nothing_older(cache, 2, for_s=FRESH_S)
    owner.decide(wallet(3))
    await until(lambda: is_shown(cache, 3))


async def test_who_owned_the_partition_before_is_not_heard(
    server: Redis, redis: Client, owner: Owner, cache: Cache
) -> None:
    next_one = PartitionLocks(redis, "worker-2", lambda: 2, lambda: [3])
    async with next_one:
        await asyncio.wait_for(next_one.prove(3), 2)
        await cache.remember([Balances(3, next_one.epoch(3), [wallet(2)])], [])
        owner.decide(wallet(1))
        await assert_nothing_older(cache, 2, for_s=1)


async def test_a_redis_that_is_away_is_not_asked_by_each_reader(server: Redis, cache: Cache) -> None:
    loop = asyncio.get_running_loop()
    with stopped(server):
        began_s = loop.time()
        for _ in range(50):
            with pytest.raises(UNAVAILABLE):
                await cache.wallet(3, ID)
        assert loop.time() - began_s < 2


async def assert_nothing_older(cache: Cache, version: int, *, for_s: float) -> None:
    """Assert that for a while no older version is shown."""
    loop = asyncio.get_running_loop()
    ends_s = loop.time() + for_s
    while loop.time() < ends_s:
        with suppress(*UNAVAILABLE):
            assert (await shown(cache) or version) >= version
        await asyncio.sleep(0.005)


async def is_shown(cache: Cache, version: int) -> bool:
    """Return whether a version is shown."""
    try:
        return await shown(cache) == version
    except UNAVAILABLE:
        return False


async def is_gone(cache: Cache) -> bool:
    """Return whether the wallet is not remembered."""
    return await cache.wallet(3, ID) is None
