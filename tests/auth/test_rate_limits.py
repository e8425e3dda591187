"""Limits: how often logins and registrations may be tried, by whom, and what counts while Redis is away."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis

from mercuria.auth.emails import Email
from mercuria.auth.rate_limits import PREFIX, REDIS_PAUSE_S, RateLimits
from mercuria.embedded.stack import Stack
from mercuria.redis.client import connect
from tests.auth.conftest import an_email, settings_of

HOME, WORK = "198.51.100.7", "203.0.113.9"
RATES = {
    "MERCURIA_LOGIN_LIMIT_ADDRESS": "5/minute",
    "MERCURIA_LOGIN_LIMIT_ACCOUNT": "3/minute",
    "MERCURIA_REGISTER_LIMIT_ADDRESS": "2/hour",
    "MERCURIA_REGISTER_LIMIT_ACCOUNT": "1/hour",
}


@pytest.fixture
async def redis(servers: Stack) -> AsyncIterator[Redis]:
    """Return an empty Redis."""
    client = connect(servers.env["MERCURIA_REDIS"])
    await client.flushdb()
    yield client
    await client.aclose()


@asynccontextmanager
async def opened(url: str, keys_file: Path, **rates: str) -> AsyncIterator[RateLimits]:
    """Open the limits of a worker."""
    where = {"MERCURIA_DATA_DIR": str(keys_file.parent), "MERCURIA_REDIS": url}
    limits = RateLimits(settings_of(where, keys_file, **(RATES | rates)))
    yield limits
    await limits.close()


@pytest.fixture
async def limits(servers: Stack, redis: Redis, keys_file: Path) -> AsyncIterator[RateLimits]:
    """Return the limits of a worker; nothing has been tried yet."""
    async with opened(servers.env["MERCURIA_REDIS"], keys_file) as worker:
        yield worker


@pytest.fixture
async def other(servers: Stack, redis: Redis, keys_file: Path) -> AsyncIterator[RateLimits]:
    """Return the limits of another worker."""
    async with opened(servers.env["MERCURIA_REDIS"], keys_file) as worker:
        yield worker


async def refused(limits: RateLimits, address: str, email: Email, times: int) -> list[bool]:
    """Try to log in some times; return for each whether it is refused."""
    return [await limits.refusal("login", address, email) is not None for _ in range(times)]


async def test_an_account_is_protected_from_all_addresses_together(limits: RateLimits, email: Email) -> None:
    assert await refused(limits, HOME, email, 2) == [False] * 2
    assert await refused(limits, WORK, email, 3) == [False, True, True]
    assert await refused(limits, WORK, an_email(), 1) == [False]


async def test_failures_from_elsewhere_do_not_keep_the_owner_out(
    limits: RateLimits, other: RateLimits, email: Email
) -> None:
    assert await limits.refusal("login", HOME, email) is None
    await limits.succeed("login", HOME, email)
    assert await refused(limits, WORK, email, 5) == [False] * 3 + [True] * 2
    assert await refused(limits, "203.0.113.10", email, 1) == [True], "others are limited together"
    assert await refused(other, HOME, email, 1) == [False], "as another worker knows"
    await other.succeed("login", HOME, email)
    # From there, failures have a limit of their own, and do not reach the others.
    assert await refused(limits, HOME, email, 4) == [False] * 3 + [True]


async def test_a_network_is_known_for_the_account_that_logged_in_there(
    limits: RateLimits, email: Email
) -> None:
    assert await limits.refusal("login", HOME, an_email()) is None
    await limits.succeed("login", HOME, an_email())
    assert await refused(limits, WORK, email, 4) == [False] * 3 + [True]
    assert await refused(limits, HOME, email, 1) == [True]


async def test_an_account_is_known_where_it_was_made(limits: RateLimits, email: Email) -> None:
    assert await limits.refusal("register", "2001:db8:1:2::1", email) is None
    await limits.succeed("register", "2001:db8:1:2::1", email)
    assert await refused(limits, WORK, email, 4) == [False] * 3 + [True]
    assert await refused(limits, "2001:db8:1:2:aaaa::2", email, 1) == [False], "the same /64"
    assert await refused(limits, "2001:db8:1:3::1", email, 1) == [True]


async def test_logins_that_succeed_do_not_use_up_the_limit_of_an_account(
    servers: Stack, redis: Redis, keys_file: Path, email: Email
) -> None:
    url, many = servers.env["MERCURIA_REDIS"], {"MERCURIA_LOGIN_LIMIT_ADDRESS": "1000/minute"}
    async with opened(url, keys_file, **many) as limits:
        for number in range(8):
            address = HOME if number % 2 else f"198.51.100.{number}"
            assert await limits.refusal("login", address, email) is None
            await limits.succeed("login", address, email)
        for _ in range(8):
            assert await limits.refusal("login", "203.0.113.77", email) is None
            await limits.give_back("login", "203.0.113.77", email)
        assert await refused(limits, "203.0.113.77", email, 4) == [False] * 3 + [True]


async def test_an_address_is_limited_in_logins_that_succeed_too(limits: RateLimits) -> None:
    for _ in range(5):
        email = an_email()
        assert await limits.refusal("login", HOME, email) is None
        await limits.succeed("login", HOME, email)
    assert await refused(limits, HOME, an_email(), 1) == [True]


async def test_when_redis_has_forgotten_all_networks_the_account_is_protected(
    limits: RateLimits, redis: Redis, email: Email
) -> None:
    await limits.succeed("login", HOME, email)
    await redis.flushdb()
    assert await refused(limits, WORK, email, 3) == [False] * 3
    assert await refused(limits, HOME, email, 1) == [True]


async def test_a_known_network_is_kept_for_as_long_as_a_login_and_is_not_told(
    limits: RateLimits, redis: Redis, email: Email
) -> None:
    await limits.succeed("login", HOME, email)
    (key,) = [bytes(key).decode() for key in await redis.keys()]  # type: ignore[arg-type]  # it decodes nothing
    assert key.startswith(f"{PREFIX}:known:") and HOME not in key and email.pseudonym not in key
    assert 89 * 86_400 < await redis.ttl(key) <= 90 * 86_400


async def test_an_address_may_not_try_one_account_after_the_other(limits: RateLimits) -> None:
    assert [(await refused(limits, HOME, an_email(), 1))[0] for _ in range(7)] == [False] * 5 + [True] * 2
    assert await refused(limits, WORK, an_email(), 1) == [False]


async def test_addresses_of_one_ipv6_network_are_one(limits: RateLimits) -> None:
    found = [(await refused(limits, f"2001:db8:1:2::{number}", an_email(), 1))[0] for number in range(1, 7)]
    assert found == [False] * 5 + [True]


async def test_registering_has_limits_of_its_own(limits: RateLimits, email: Email) -> None:
    assert await limits.refusal("register", HOME, email) is None
    assert await limits.refusal("register", WORK, email) is not None
    assert await refused(limits, HOME, email, 1) == [False]


async def test_a_refusal_says_when_to_come_again(limits: RateLimits, email: Email) -> None:
    await refused(limits, HOME, email, 3)
    refusal = await limits.refusal("login", HOME, email)
    assert refusal is not None
    assert refusal.code == "too_many_requests"
    assert 55 <= int(refusal.headers["Retry-After"]) <= 60


async def test_after_that_time_it_may_be_tried_again(
    servers: Stack, redis: Redis, keys_file: Path, email: Email
) -> None:
    url = servers.env["MERCURIA_REDIS"]
    fast = {"MERCURIA_LOGIN_LIMIT_ACCOUNT": "1/second", "MERCURIA_LOGIN_LIMIT_ADDRESS": "1000/second"}
    async with opened(url, keys_file, **fast) as limits:
        assert await limits.refusal("login", HOME, email) is None
        refusal = await limits.refusal("login", HOME, email)
        assert refusal is not None
        assert refusal.headers["Retry-After"] == "1"
        deadline = time.monotonic() + 3
        while await limits.refusal("login", WORK, email) is not None:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)


async def test_workers_count_together(limits: RateLimits, other: RateLimits, email: Email) -> None:
    assert await refused(limits, HOME, email, 2) == [False] * 2
    assert await refused(other, HOME, email, 2) == [False, True]


async def test_a_race_lets_no_more_through(limits: RateLimits, email: Email) -> None:
    outcomes = await asyncio.gather(*(limits.refusal("login", HOME, email) for _ in range(20)))
    assert sum(outcome is None for outcome in outcomes) == 3


async def test_redis_is_told_no_e_mail_address_and_keeps_nothing_for_long(
    limits: RateLimits, redis: Redis, email: Email
) -> None:
    await limits.refusal("login", HOME, email)
    await limits.refusal("register", HOME, email)
    keys = [bytes(key).decode() for key in await redis.keys()]  # type: ignore[arg-type]  # it decodes nothing
    assert len(keys) == 4
    assert all(key.startswith(PREFIX) for key in keys)
    assert not [key for key in keys if "example.com" in key or email.key.split("@")[0] in key]
    assert all([0 < await redis.ttl(key) <= 3600 for key in keys])


async def test_while_redis_is_away_a_worker_counts_for_itself(
    servers: Stack, limits: RateLimits, email: Email
) -> None:
    assert await refused(limits, HOME, email, 1) == [False]
    await asyncio.to_thread(servers.redis.stop)
    try:
        assert await refused(limits, HOME, email, 4) == [False] * 3 + [True]
        refusal = await limits.refusal("login", HOME, email)
        assert refusal is not None
        assert 1 <= int(refusal.headers["Retry-After"]) <= 60
        await limits.succeed("login", HOME, email)
        assert await refused(limits, HOME, email, 1) == [True], "every attempt counts"
        assert [(await refused(limits, WORK, an_email(), 1))[0] for _ in range(6)] == [False] * 5 + [True]
    finally:
        await asyncio.to_thread(servers.redis.start)
    # What Redis had counted before, it counts on.
    another = an_email()
    deadline = time.monotonic() + 10 * REDIS_PAUSE_S
    while await refused(limits, WORK, another, 1) != [False]:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def test_a_redis_that_does_not_answer_delays_one_attempt_and_not_the_next(
    keys_file: Path, email: Email
) -> None:
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with opened(f"redis://127.0.0.1:{port}/0", keys_file) as limits:
        assert await refused(limits, HOME, email, 1) == [False]
        began = time.monotonic()
        assert await refused(limits, HOME, email, 3) == [False, False, True]
        assert time.monotonic() - began < 1.0
    server.close()
