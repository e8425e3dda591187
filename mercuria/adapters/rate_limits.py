"""Limits for what is tried without an access token: logins and registrations, per address and per account.

They are counted in Redis for all workers together. While Redis is away, each worker counts for itself.
"""

import math
import time
from collections.abc import Iterable
from ipaddress import IPv6Address, ip_address
from typing import Any, Literal, NamedTuple

from limits import RateLimitItem, RateLimitItemPerSecond
from limits.aio.storage import MemoryStorage, RedisStorage
from limits.aio.strategies import FixedWindowRateLimiter, MovingWindowRateLimiter, RateLimiter
from redis.asyncio import BlockingConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from mercuria.adapters.emails import Email
from mercuria.adapters.problems import Problem
from mercuria.adapters.redis import TIMEOUT_S, UNAVAILABLE
from mercuria.config import Rate, Settings

PREFIX = "mercuria:limits"
REDIS_PAUSE_S = 1.0
"""How long Redis is not asked after it did not answer."""
CONNECTIONS = 8
IPV6_NETWORK = 64
"""Whoever has one address of IPv6 has all that begin with as many bits."""

Action = Literal["login", "register"]


class _Limit(NamedTuple):
    """A rate, and for whom it counts."""

    item: RateLimitItem
    whose: str


class RateLimits:
    """Counts what is tried.

    Args:
        settings: the rates, and where Redis is.
    """

    def __init__(self, settings: Settings) -> None:
        # A pool of its own, whose connections are waited for: many attempts at once are what is to be counted here.
        self._connections = BlockingConnectionPool.from_url(
            settings.redis,
            max_connections=CONNECTIONS,
            timeout=TIMEOUT_S,
            socket_connect_timeout=TIMEOUT_S,
            socket_timeout=TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
        )
        pool: Any = self._connections
        storage = RedisStorage(
            f"async+{settings.redis}", implementation="redispy", key_prefix=PREFIX, connection_pool=pool
        )
        self._shared = MovingWindowRateLimiter(storage)
        # The moving window is dear in memory, and here it is exact enough without.
        self._own = FixedWindowRateLimiter(MemoryStorage())
        self._ask_redis_at_s = 0.0
        self._per_address = {
            "login": _item("login:address", settings.login_limit_address),
            "register": _item("register:address", settings.register_limit_address),
        }
        self._per_account = {
            "login": _item("login:account", settings.login_limit_account),
            "register": _item("register:account", settings.register_limit_account),
        }

    async def refusal(self, action: Action, address: str, email: Email) -> Problem | None:
        """Count an attempt; return the problem where there were too many before it, which it then is none of."""
        limits = (
            _Limit(self._per_address[action], network_of(address)),
            _Limit(self._per_account[action], email.pseudonym),
        )
        wait_s = await self._wait_s(limits)
        if wait_s is None:
            return None
        return Problem("too_many_requests", headers={"Retry-After": str(wait_s)})

    async def close(self) -> None:
        """Close the connections."""
        await self._connections.aclose()

    async def _wait_s(self, limits: Iterable[_Limit]) -> int | None:
        """Count, and return after how many seconds it may be tried again; None where it may be done now."""
        if time.monotonic() >= self._ask_redis_at_s:
            try:
                return await _wait_s(self._shared, limits)
            except UNAVAILABLE:
                self._ask_redis_at_s = time.monotonic() + REDIS_PAUSE_S
        return await _wait_s(self._own, limits)


async def _wait_s(limiter: RateLimiter, limits: Iterable[_Limit]) -> int | None:
    for limit in limits:
        if not await limiter.hit(limit.item, limit.whose):
            stats = await limiter.get_window_stats(limit.item, limit.whose)
            return max(1, math.ceil(stats.reset_time - time.time()))
    return None


def network_of(address: str) -> str:
    """Return what one client has of addresses: one of IPv4, a /64 of IPv6."""
    try:
        ip = ip_address(address)
    except ValueError:
        return address
    if not isinstance(ip, IPv6Address):
        return str(ip)
    return str(IPv6Address(int(ip) >> (128 - IPV6_NETWORK) << (128 - IPV6_NETWORK)))


def _item(name: str, rate: Rate) -> RateLimitItem:
    return RateLimitItemPerSecond(rate.count, rate.window_s, name)
