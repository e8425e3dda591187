"""The Redis client. It has short timeouts, since no caller may wait long for data that can be rebuilt."""

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.maint_notifications import MaintNotificationsConfig

TIMEOUT_S = 1.0
POOL_SIZE = 16

UNAVAILABLE = (RedisError, OSError, TimeoutError)
"""The errors that a call raises if Redis is unavailable, is loading its data, or refuses writes."""


def connect(url: str, *, timeout_s: float | None = TIMEOUT_S) -> Redis:
    """Return a client that connects on use; `timeout_s` applies to each answer, None is for a listener."""
    # A caller waits for a free connection: otherwise the seventeenth caller would take Redis for unavailable.
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=POOL_SIZE,
        timeout=TIMEOUT_S,
        socket_connect_timeout=TIMEOUT_S,
        socket_timeout=timeout_s,
        socket_keepalive=True,
        retry=Retry(NoBackoff(), 0),
        # With notifications, the client would reuse connections that Redis has closed: each fails once after a restart.
        maint_notifications_config=MaintNotificationsConfig(enabled=False),
    )
    return Redis.from_pool(pool)
