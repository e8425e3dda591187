"""What stands in Redis counts only where a worker of this installation has written it there."""

import logging
import time
from collections.abc import Callable
from datetime import timedelta
from hashlib import blake2b
from uuid import UUID, uuid4

import pytest
from msgspec.structs import replace
from redis.asyncio import Redis as Client

from mercuria.domain.commands import Position
from mercuria.domain.transaction import Transaction
from mercuria.domain.wallet import Wallet
from mercuria.observability import metrics
from mercuria.projections.analytics.cache import POSITIONS_KEY, AnalyticsCache, first_day
from mercuria.projections.analytics.counters import FIRST_DAY, NOWHERE
from mercuria.projections.analytics.store import ActiveWallet, Counters, DayCounter
from mercuria.redis import cache as cache_module
from mercuria.redis.authenticity import Authenticity
from mercuria.redis.cache import CLOCKS_DIFFER_S, EPOCH_KEY, LIFE_S, Balances, Cache

ID, OTHER_ID = uuid4(), uuid4()
PARTITION, EPOCH = 3, 7
TODAY = first_day() + timedelta(days=34)
DAY = (TODAY - FIRST_DAY).days


def wallet(version: int = 5, id_: UUID = ID) -> Wallet:
    """Return a wallet at a version."""
    return Wallet(id_, uuid4(), "EUR", 100 * version, 0, 0, "open", version, {}, 1, version)


def balance_key(id_: UUID = ID, epoch: int = EPOCH) -> str:
    return f"mercuria:sealed-balance:{epoch}:{id_.hex}"


def transaction() -> Transaction:
    return Transaction(
        id=uuid4(),
        initiated=Position(-1, -1, 0),
        kind="deposit",
        status="failed",
        from_wallet_id=None,
        to_wallet_id=ID,
        amount=1,
        currency="EUR",
        reference=None,
        metadata={},
    )


@pytest.fixture
def distrusted() -> list[str]:
    """Return the keys that were not believed."""
    return []


@pytest.fixture
def authenticity(distrusted: list[str]) -> Authenticity:
    """Return what an installation knows its own by."""
    return Authenticity(lambda: bytes(32), distrusted.append)


async def set_epoch(redis: Client, epoch: int = EPOCH) -> None:
    """Let an epoch of the partition be the current one."""
    process = (await redis.info("server"))["run_id"]
    await redis.set(f"{EPOCH_KEY.format(PARTITION)}:{process}", epoch)


@pytest.fixture
async def cache(redis: Client, authenticity: Authenticity) -> Cache:
    """Return an empty cache."""
    await set_epoch(redis)
    return Cache(redis, authenticity)


# Wallets.


def with_more_money(value: bytes) -> bytes:
    assert value.count(b"\xcd\x01\xf4") == 1, "the balance, 500, as MessagePack has it"
    return value.replace(b"\xcd\x01\xf4", b"\xcd\xff\xff")


def of_a_higher_version(value: bytes) -> bytes:
    return b"9" * 19 + value[19:]


def without_a_mac(value: bytes) -> bytes:
    return value[:-24]


def written_later(value: bytes) -> bytes:
    return value[:-24] + (2**63).to_bytes(8) + value[-16:]


@pytest.mark.parametrize(
    "change",
    [
        with_more_money,
        of_a_higher_version,
        without_a_mac,
        written_later,
        lambda _: b"",
        lambda _: b"\x00" * 15,
    ],
)
async def test_a_wallet_that_was_changed_in_redis_is_not_shown_and_gives_way_to_a_true_one(
    redis: Client, cache: Cache, distrusted: list[str], change: Callable[[bytes], bytes]
) -> None:
    await cache.remember([Balances(PARTITION, EPOCH, [wallet()])], [])
    assert await cache.wallet(PARTITION, ID) is not None and distrusted == []
    value = await redis.get(balance_key())
    assert value is not None
    await redis.set(balance_key(), change(value))
    assert await cache.wallet(PARTITION, ID) is None
    assert distrusted == [balance_key()]
    await cache.remember([Balances(PARTITION, EPOCH, [wallet(6)])], [])
    found = await cache.wallet(PARTITION, ID)
    assert found is not None and found.wallet.version == 6


async def test_a_wallet_counts_only_under_its_own_id_and_epoch(redis: Client, cache: Cache) -> None:
    await cache.remember([Balances(PARTITION, EPOCH, [wallet(5), wallet(9, OTHER_ID)])], [])
    await redis.copy(balance_key(OTHER_ID), balance_key(), replace=True)
    assert await cache.wallet(PARTITION, ID) is None
    await cache.remember([Balances(PARTITION, EPOCH, [wallet(5)])], [])
    await redis.copy(balance_key(), balance_key(epoch=EPOCH + 1))
    await set_epoch(redis, EPOCH + 1)
    assert await cache.wallet(PARTITION, ID) is None
    await set_epoch(redis)
    assert await cache.wallet(PARTITION + 1, ID) is None
    assert await cache.wallet(PARTITION, ID) is not None


async def test_what_another_installation_wrote_does_not_count(redis: Client, cache: Cache) -> None:
    other = Cache(redis, Authenticity(lambda: b"\x01" * 32))
    await other.remember([Balances(PARTITION, EPOCH, [wallet()])], [])
    assert await cache.wallet(PARTITION, ID) is None


async def test_what_would_no_longer_live_does_not_count_when_it_is_brought_back(
    redis: Client, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = time.time()
    for age_s, is_shown in ((LIFE_S - 60, True), (LIFE_S + CLOCKS_DIFFER_S + 1, False), (-3600, True)):
        await redis.delete(balance_key())
        monkeypatch.setattr(cache_module.time, "time", lambda age_s=age_s: now_s - age_s)
        await cache.remember([Balances(PARTITION, EPOCH, [wallet()])], [])
        monkeypatch.setattr(cache_module.time, "time", lambda: now_s)
        assert (await cache.wallet(PARTITION, ID) is not None) is is_shown, age_s


async def test_one_forged_wallet_hides_no_other_one(redis: Client, cache: Cache) -> None:
    await cache.remember([Balances(PARTITION, EPOCH, [wallet(9, OTHER_ID)])], [])
    await redis.set(balance_key(), b"forged")
    found = await cache._find_all([(PARTITION, ID), (PARTITION, OTHER_ID), (PARTITION, uuid4())])
    assert [each and each.wallet.version for each in found] == [None, 9, None]


# Transactions.


async def test_a_transaction_counts_only_as_it_was_written_and_under_its_own_id(
    redis: Client, cache: Cache, distrusted: list[str]
) -> None:
    failed, other = transaction(), transaction()
    key, other_key = (f"mercuria:sealed-transaction:{each.id.hex}" for each in (failed, other))
    await cache.remember([], [failed, other])
    value = await redis.get(key)
    assert value is not None and value.count(b"failed") == 1
    await redis.set(key, value.replace(b"failed", b"parted"))
    assert await cache.transaction(failed.id) is None
    await redis.copy(other_key, key)
    assert await cache.transaction(failed.id) is None
    assert distrusted == [key, key]
    # What is forged is removed, so it keeps out no one who remembers it only where there is none.
    pending = replace(failed, status="pending")
    await cache.remember_pending(pending)
    assert await cache.transaction(failed.id) == pending
    assert await cache.transaction(other.id) == other


# Counters of days.


def counters(before: int, after: int, movements: int = 4, volume: int = 900) -> Counters:
    """Return counters of a day with two active wallets."""
    day = DayCounter(DAY, "EUR", "deposit", movements, volume)
    return Counters(before, after, [day], [ActiveWallet(DAY, "EUR", id_.hex) for id_ in (ID, OTHER_ID)], [])


async def shown(cache: AnalyticsCache) -> tuple[int, int, int] | None:
    """Return what is shown of today: deposits, their volume, active wallets; None where nothing is."""
    found = await cache.daily(TODAY, TODAY + timedelta(days=1), [PARTITION])
    if found is None:
        return None
    (day,) = found
    return day.deposits.movements, day.deposits.volume, day.active_wallets


@pytest.fixture
async def figures(redis: Client, authenticity: Authenticity) -> AnalyticsCache:
    """Return counters of today."""
    made = AnalyticsCache(redis, authenticity)
    assert await made.put(PARTITION, counters(NOWHERE, 10))
    return made


async def test_a_counter_that_was_changed_in_redis_is_not_shown_and_is_filled_again(
    redis: Client, figures: AnalyticsCache
) -> None:
    assert await shown(figures) == (4, 900, 2)
    key, field = f"analytics:sealed:day:{TODAY}", f"EUR:deposit:{PARTITION}"
    value = await redis.hget(key, field)
    assert value is not None
    for forged_field, forged in (
        (field, value.replace(b"900", b"901")),
        (field, b"4 900"),
        (f"USD:deposit:{PARTITION}", value),
        ("EUR:deposit:4", value),
    ):
        await redis.hset(key, forged_field, forged)
        assert await shown(figures) is None
        # So it is filled again, from the beginning.
        assert await figures.positions() == {}
        assert not await figures.put(PARTITION, counters(10, 11))
        assert await figures.put(PARTITION, counters(NOWHERE, 11))
        assert await shown(figures) == (4, 900, 2)


async def test_a_wallet_that_no_worker_noted_was_not_active(redis: Client, figures: AnalyticsCache) -> None:
    (member, _) = await redis.smembers(f"analytics:sealed:active:{TODAY}:EUR")
    await redis.sadd(f"analytics:sealed:active:{TODAY}:EUR", uuid4().hex, b"", b"\xff " + member[-32:])
    assert await shown(figures) == (4, 900, 2)


async def test_a_position_that_no_worker_wrote_keeps_no_counters_out(
    redis: Client, figures: AnalyticsCache
) -> None:
    await redis.hset(POSITIONS_KEY, str(PARTITION), "999999 " + "0" * 32)
    assert await shown(figures) is None
    assert await figures.put(PARTITION, counters(NOWHERE, 12, 5, 1000))
    assert await shown(figures) == (5, 1000, 2)


# Who notices.


def test_what_is_not_believed_is_counted_each_time_and_said_once_a_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    before = metrics.cache_distrusted._value.get()
    authenticity = Authenticity(lambda: bytes(32))
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            authenticity.distrust("mercuria:sealed-balance:7:ab")
    assert metrics.cache_distrusted._value.get() == before + 5
    assert [each.getMessage()[:9] for each in caplog.records] == ["Security:"]


def test_the_leg_key_itself_makes_no_mac() -> None:
    found = Authenticity(lambda: bytes(32)).mac(b"key", b"content")
    assert found != blake2b(b"3:keycontent", key=bytes(32), digest_size=16).digest()
    assert found != Authenticity(lambda: bytes(32)).mac(b"keyc", b"ontent")
