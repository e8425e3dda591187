"""Rate limits for requests without an access token: logins and registrations, per address and per account.

The limit of an address counts every attempt, since each attempt costs a hash. The limit of an account counts
failures only, so its owner may log in as often as needed. Each network from which the owner has logged in
before has a limit of its own, so failures from elsewhere do not lock the owner out (like OWASP's device
cookies, but for clients without cookies). All other networks share the account's limit.

Redis counts attempts for all workers together. While Redis is unavailable, each worker counts every attempt
by itself, without regard to networks. A network that Redis has forgotten is unknown until the next login from
there.
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
"""How long a worker does not ask Redis after Redis did not answer."""
CONNECTIONS = 8
IPV6_NETWORK = 64
"""The length of a client's IPv6 prefix: a client with one address has all addresses of its prefix."""

Action = Literal["login", "register"]


class _Limit(NamedTuple):
    """A rate, and the key under which it counts."""

    item: RateLimitItem
    whose: str


class RateLimits:
    """Counts attempts and enforces the limits.

    Args:
        settings: the rates, and the URL of Redis.
    """

    def __init__(self, settings: Settings) -> None:
        # A pool of its own whose callers wait for a connection: many simultaneous attempts are the case to count.
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
        # The moving window needs much memory, and the fixed one is exact enough here.
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
        """Count an attempt; return a problem if the limit is reached already. Refused attempts do not count.

        A login counts as a failure until `succeed` or `give_back` corrects it. So concurrent attempts allow
        no more failures than consecutive ones.
        """
        wait_s = await self._wait_s(action, address, email)
        if wait_s is None:
            return None
        return Problem("too_many_requests", headers={"Retry-After": str(wait_s)})

    async def succeed(self, action: Action, address: str, email: Email) -> None:
        """Note that the owner made an attempt: it is not a failure, and its network is known from now on."""
        await self.give_back(action, address, email)
        with suppress(*UNAVAILABLE):
            await self._redis.set(_known(address, email), b"", ex=self._known_s)

    async def give_back(self, action: Action, address: str, email: Email) -> None:
        """Note that a login attempt ended before a password was compared."""
        if action != "login" or self._is_redis_away():
            return
        with suppress(*UNAVAILABLE):
            limit = await self._of_account(action, address, email)
            # The library's own list of timestamps, the newest first.
            await self._redis.lpop(f"{PREFIX}:{limit.item.key_for(limit.whose)}")

    async def close(self) -> None:
        """Close the connections."""
        await self._connections.aclose()

    async def _wait_s(self, action: Action, address: str, email: Email) -> int | None:
        """Count an attempt; return the seconds until a retry is allowed, or None if it is allowed."""
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
        """Return the limit of an account that applies to an address."""
        if action == "login" and await self._redis.exists(known := _known(address, email)):
            return _Limit(self._per_known_network, known.rpartition(":")[2])
        return _Limit(self._per_account[action], email.pseudonym)

    def _is_redis_away(self) -> bool:
        return time.monotonic() < self._ask_redis_at_s


def _known(address: str, email: Email) -> str:
    """Return the key that records that an account's owner has logged in from the network of an address."""
    both = f"{email.pseudonym} {network_of(address)}"
    return f"{PREFIX}:known:{sha256(both.encode()).hexdigest()[:32]}"


async def _wait_s(limiter: RateLimiter, limits: Iterable[_Limit]) -> int | None:
    for limit in limits:
        if not await limiter.hit(limit.item, limit.whose):
            stats = await limiter.get_window_stats(limit.item, limit.whose)
            return max(1, math.ceil(stats.reset_time - time.time()))
    return None


def network_of(address: str) -> str:
    """Return the network that one client has: a single IPv4 address, or a /64 of IPv6."""
    try:
        ip = ip_address(address)
    except ValueError:
        return address
    if not isinstance(ip, IPv6Address):
        return str(ip)
    return str(IPv6Address(int(ip) >> (128 - IPV6_NETWORK) << (128 - IPV6_NETWORK)))


def _item(name: str, rate: Rate) -> RateLimitItem:
    return RateLimitItemPerSecond(rate.count, rate.window_s, name)
