"""Moments as texts: RFC 3339, in UTC, with milliseconds. Within Mercuria, a moment is a number of ms since 1970."""

from datetime import UTC, datetime
from functools import lru_cache


@lru_cache(4)
def rfc3339(time_ms: int) -> str:
    """Return a moment as RFC 3339 has it. Records of one batch share few moments."""
    return rfc3339_of(datetime.fromtimestamp(time_ms / 1000, UTC))


def rfc3339_of(moment: datetime) -> str:
    """Return a moment as RFC 3339 has it; `moment` knows its time zone."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
