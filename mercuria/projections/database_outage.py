"""An outage of PostgreSQL, as one projection knows it: since when, how often it tries again, what it logs."""

import asyncio
import time

from mode.utils.logging import get_logger

from mercuria.postgres.database import DatabaseUnavailable

SHORTEST_RETRY_S = 0.02
LONGEST_RETRY_S = 2.0

log = get_logger(__name__)


class DatabaseOutage:
    """The current outage, if there is one.

    Args:
        label: what the projection writes, for log messages.
    """

    def __init__(self, label: str) -> None:
        self._label = label
        self._since_s: float | None = None
        self._retry_s = 0.0

    @property
    def is_on(self) -> bool:
        """Whether PostgreSQL is unavailable, as far as the projection knows."""
        return self._since_s is not None

    @property
    def lasts_s(self) -> float:
        """For how long PostgreSQL has been unavailable; 0 while it is available."""
        return 0.0 if self._since_s is None else time.monotonic() - self._since_s

    async def wait(self, error: DatabaseUnavailable) -> None:
        """Wait until the next attempt is due, progressively longer."""
        if self._since_s is None:
            self._since_s, self._retry_s = time.monotonic(), SHORTEST_RETRY_S
            log.warning("PostgreSQL is away; %s wait to be written to it: %s", self._label, error)
        await asyncio.sleep(self._retry_s)
        self._retry_s = min(2 * self._retry_s, LONGEST_RETRY_S)

    def end(self) -> None:
        """Note that PostgreSQL answers."""
        if self._since_s is not None:
            log.warning("PostgreSQL is back after %.1f s; %s are written again.", self.lasts_s, self._label)
            self._since_s = None
