"""Resting: nobody waits for Redis again right after it did not answer."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from redis.exceptions import RedisError

from mercuria.adapters.redis import UNAVAILABLE

REST_S = 3.0


class Resting(RedisError):
    """Redis did not answer a moment ago, and is not asked again yet."""


class Rest:
    """Spares callers the wait for what did not answer, for a while."""

    def __init__(self, for_s: float = REST_S) -> None:
        self._for_s = for_s
        self._until_s = 0.0

    @contextmanager
    def unless_away(self) -> Iterator[None]:
        """Carry out the block, which asks Redis, unless it did not answer lately.

        Raises:
            Resting: it did not.
        """
        if time.monotonic() < self._until_s:
            raise Resting
        try:
            yield
        except UNAVAILABLE:
            self._until_s = time.monotonic() + self._for_s
            raise
