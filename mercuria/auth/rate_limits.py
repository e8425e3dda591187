"""Limits for what is tried without an access token: logins and registrations, per address and per account.

An address is limited in all that it tries, since each attempt costs a hash. An account is limited in failures only, so
that its owner may log in as often as there is reason to, and each network from which the owner has logged in before
has a limit of its own: failures from elsewhere do not keep the owner out (as OWASP's device cookies do it, for clients
without cookies). All other networks share the account's limit.

They are counted in Redis for all workers together. While Redis is away, each worker counts for itself, every attempt
and without regard to networks; networks that Redis has forgotten are unknown until the next login from there.
"""

import math
import time
from collections.abc import Iterable
from contextlib import suppress
from hashlib import sha256
from ipaddress import IPv6Address, ip_address
from typing import Any, Literal, NamedTuple

from limits import RateLimitItem, RateLimitItemPerSecond
from limits.aio.storage import MemoryStorage, RedisStorage
from limits.aio.strategies import FixedWindowRateLimiter, MovingWindowRateLimiter, RateLimiter
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from mercuria.auth.emails import Email
from mercuria.config import Rate, Settings
from mercuria.http.problems import Problem
from mercuria.redis.client import TIMEOUT_S, UNAVAILABLE

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
        self._redis = Redis(connection_pool=self._connections)
        self._known_s = settings.refresh_family_days * 86_400
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
        self._per_known_network = _item("login:network", settings.login_limit_account)

    async def refusal(self, action: Action, address: str, email: Email) -> Problem | None:
        """Count an attempt; return the problem where there were too many before it, which it then is none of.

        A login counts as a failure until `succeed` or `give_back` says otherwise: so many at once are no more than one
        after the other.
        """
        wait_s = await self._wait_s(action, address, email)
        if wait_s is None:
            return None
        return Problem("too_many_requests", headers={"Retry-After": str(wait_s)})

    async def succeed(self, action: Action, address: str, email: Email) -> None:
        """Note that an attempt was the owner's: it is no failure, and its network is known from now on."""
        await self.give_back(action, address, email)
        with suppress(*UNAVAILABLE):
            await self._redis.set(_known(address, email), b"", ex=self._known_s)

    async def give_back(self, action: Action, address: str, email: Email) -> None:
        """Note that no password was compared in an attempt to log in."""
        if action != "login" or self._is_redis_away():
            return
        with suppress(*UNAVAILABLE):
            limit = await self._of_account(action, address, email)
            # The library's own list of moments; the newest is the first.
            await self._redis.lpop(f"{PREFIX}:{limit.item.key_for(limit.whose)}")

    async def close(self) -> None:
        """Close the connections."""
        await self._connections.aclose()

    async def _wait_s(self, action: Action, address: str, email: Email) -> int | None:
        """Count, and return after how many seconds it may be tried again; None where it may be done now."""
        of_address = _Limit(self._per_address[action], network_of(address))
        if not self._is_redis_away():
            try:
                of_account = await self._of_account(action, address, email)
                return await _wait_s(self._shared, (of_address, of_account))
            except UNAVAILABLE:
                self._ask_redis_at_s = time.monotonic() + REDIS_PAUSE_S
        of_account = _Limit(self._per_account[action], email.pseudonym)
        return await _wait_s(self._own, (of_address, of_account))

    async def _of_account(self, action: Action, address: str, email: Email) -> _Limit:
        """Return the limit that protects an account from an address."""
        if action == "login" and await self._redis.exists(known := _known(address, email)):
            return _Limit(self._per_known_network, known.rpartition(":")[2])
        return _Limit(self._per_account[action], email.pseudonym)

    def _is_redis_away(self) -> bool:
        return time.monotonic() < self._ask_redis_at_s


def _known(address: str, email: Email) -> str:
    """Return the key that says that an account's owner has logged in from the network of an address."""
    both = f"{email.pseudonym} {network_of(address)}"
    return f"{PREFIX}:known:{sha256(both.encode()).hexdigest()[:32]}"


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
