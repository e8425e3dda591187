"""Redis: a client that gives up soon, since nothing may wait long for what can be made again."""

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.maint_notifications import MaintNotificationsConfig

TIMEOUT_S = 1.0
POOL_SIZE = 16

UNAVAILABLE = (RedisError, OSError, TimeoutError)
"""What a call raises when Redis is away, loads its data, or refuses to write."""


def connect(url: str, *, timeout_s: float | None = TIMEOUT_S) -> Redis:
    """Return a client, which connects when it is used; `timeout_s` is for each answer, None for one that listens."""
    # Who finds no connection free waits for one: else the seventeenth caller would take Redis to be away.
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=POOL_SIZE,
        timeout=TIMEOUT_S,
        socket_connect_timeout=TIMEOUT_S,
        socket_timeout=timeout_s,
        socket_keepalive=True,
        retry=Retry(NoBackoff(), 0),
        # With them, the client would go on with connections that Redis has closed: one failure each after its restart.
        maint_notifications_config=MaintNotificationsConfig(enabled=False),
    )
    return Redis.from_pool(pool)
