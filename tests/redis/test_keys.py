"""Idempotency keys: one command a key, as long as anybody remembers it."""

import asyncio
from collections.abc import Sequence
from uuid import UUID, uuid4

import pytest
from redis.asyncio import Redis as Client

from mercuria.embedded.redis import Redis
from mercuria.postgres.database import DatabaseUnavailable
from mercuria.redis.idempotency import SINCE_KEY, Keys, command_id_of, key_prefix
from tests.redis.conftest import away, stopped

WEEK_S = 7 * 86_400


class Log:
    """What PostgreSQL knows of used keys."""

    def __init__(self) -> None:
        self.known: dict[int, UUID] = {}
        self.is_away = False
        self.is_slow = False
        self.is_new = True
        self.asked = 0

    async def used_before(self, prefixes: Sequence[int]) -> dict[int, UUID]:
        """Return which commands have had keys."""
        self.asked += 1
        if self.is_away:
            raise DatabaseUnavailable("it is away")
        if self.is_slow:
            await asyncio.sleep(60)
        return {prefix: self.known[prefix] for prefix in prefixes if prefix in self.known}

    async def has_nothing(self) -> bool:
        """Return whether there has been no command."""
        return self.is_new

    def learn(self, command_id: UUID) -> None:
        """Know a command."""
        self.is_new = False
        self.known[command_id.int >> 64] = command_id


@pytest.fixture
def log() -> Log:
    """Return a log that knows nothing."""
    return Log()


@pytest.fixture
async def keys(redis: Client, log: Log) -> Keys:
    """Return the keys of a new installation."""
    return keys_of(redis, log)


def keys_of(redis: Client, log: Log) -> Keys:
    """Return the keys as another worker has them."""
    return Keys(redis, WEEK_S, log.used_before, log.has_nothing)


def commands(count: int = 2) -> list[UUID]:
    """Return the ids of commands under one key, for different wallets."""
    prefix = key_prefix(uuid4(), "key")
    return [command_id_of(prefix, uuid4()) for _ in range(count)]


async def test_a_key_is_one_commands(keys: Keys, log: Log) -> None:
    mine, other = commands()
    assert [await keys.is_free(each) for each in (mine, mine, other, mine)] == [True, True, False, True]
    assert log.asked == 0


async def test_of_many_commands_at_once_one_has_the_key(keys: Keys, redis: Client, log: Log) -> None:
    others = keys_of(redis, log)
    for _ in range(20):
        all_of_them = commands(8)
        free = await asyncio.gather(
            *((keys, others)[n % 2].is_free(each) for n, each in enumerate(all_of_them))
        )
        assert sum(free) == 1


async def test_what_an_emptied_redis_has_forgotten_postgresql_knows(
    keys: Keys, redis: Client, log: Log
) -> None:
    mine, other = commands()
    assert await keys.is_free(mine)
    assert await redis.get(SINCE_KEY) == b"0"
    log.learn(mine)
    await redis.flushall()
    assert [await keys.is_free(each) for each in (other, other, mine)] == [False, False, True]
    assert int(await redis.get(SINCE_KEY)) > 0


async def test_an_installation_that_is_not_new_may_have_keys_that_redis_does_not_know(
    keys: Keys, redis: Client, log: Log
) -> None:
    mine, other = commands()
    log.learn(mine)
    assert [await keys.is_free(each) for each in (other, mine)] == [False, True]


async def test_while_redis_may_have_forgotten_of_many_commands_at_once_one_has_the_key(
    keys: Keys, redis: Client, log: Log
) -> None:
    others = keys_of(redis, log)
    log.learn(commands()[0])
    for is_known in (True, False) * 10:
        all_of_them = commands(8)
        if is_known:
            log.learn(all_of_them[3])
        free = await asyncio.gather(
            *((keys, others)[n % 2].is_free(each) for n, each in enumerate(all_of_them))
        )
        assert sum(free) == 1
        assert free[3] or not is_known


async def test_a_key_that_was_used_while_redis_was_away_is_known_afterwards(
    server: Redis, keys: Keys, redis: Client, log: Log
) -> None:
    used = [commands() for _ in range(3)]
    with away(server):
        for mine, other in used:
            assert await keys.is_free(mine)
            assert not await keys.is_free(other)
    # Redis hears of it with the next request after the rest.
    async with asyncio.timeout(10):
        while not await redis.exists(f"mercuria:idempotency:{used[0][0].int >> 64:016x}"):
            assert await keys.is_free(commands()[0])
            await asyncio.sleep(0.1)
    others = keys_of(redis, log)
    for mine, other in used:
        assert await others.is_free(mine) and not await others.is_free(other)


async def test_a_stopped_redis_holds_up_one_request_and_not_each(server: Redis, keys: Keys, log: Log) -> None:
    loop = asyncio.get_running_loop()
    mine, other = commands()
    log.learn(mine)
    with stopped(server):
        began_s = loop.time()
        for _ in range(50):
            assert [await keys.is_free(mine), await keys.is_free(other)] == [True, False]
        assert loop.time() - began_s < 2


@pytest.mark.parametrize("way", ["away", "slow"])
@pytest.mark.parametrize("is_emptied", [True, False])
async def test_without_redis_and_postgresql_a_key_is_taken_for_new(
    server: Redis, keys: Keys, redis: Client, log: Log, is_emptied: bool, way: str
) -> None:
    loop = asyncio.get_running_loop()
    mine, other = commands()
    log.learn(mine)
    log.is_away, log.is_slow = way == "away", way == "slow"
    if is_emptied:
        await redis.flushall()
        began_s = loop.time()
        assert [await keys.is_free(each) for each in (other, mine, *commands(50))].count(True) == 2
        assert loop.time() - began_s < 2
        return
    with away(server):
        assert [await keys.is_free(each) for each in (mine, other)] == [True, False]
