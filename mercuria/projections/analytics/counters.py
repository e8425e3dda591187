"""The encoding of analytics counters as keys and values, for RocksDB and Redis.

    day:2026-11-27:EUR:deposit              count volume
    active:2026-11-27:EUR:<wallet id>       1
    user:<user id>:EUR:transfer:debit       count volume last_ms
    position                                the offset of the last ledger event that is counted

Ids have no hyphens, volumes are in minor units.
"""

from collections.abc import Iterator
from datetime import date, timedelta

from mercuria.projections.analytics.store import ActiveWallet, Counters, DayCounter, UserCounter

POSITION_KEY = b"position"
NOWHERE = -2
"""The position if none is known. The position before the first event is -1."""

FIRST_DAY = date(1970, 1, 1)

Row = tuple[bytes, bytes]


def rows_of(counters: Counters) -> Iterator[Row]:
    """Yield counters as rows, without the position."""
    for day in counters.days:
        yield (
            f"day:{date_of(day.day)}:{day.currency}:{day.kind}".encode(),
            b"%d %d" % (day.movements, day.volume),
        )
    for active in counters.active:
        yield f"active:{date_of(active.day)}:{active.currency}:{active.wallet_id}".encode(), b"1"
    for user in counters.users:
        yield (
            f"user:{user.user_id}:{user.currency}:{user.kind}:{user.direction}".encode(),
            b"%d %d %d" % (user.movements, user.volume, user.last_ms),
        )


def counter_of(row: Row) -> DayCounter | ActiveWallet | UserCounter:
    """Return the counter in a row."""
    what, first, currency, *rest = row[0].decode().split(":")
    numbers = [int(number) for number in row[1].split()]
    if what == "user":
        kind, direction = rest
        return UserCounter(first, currency, kind, direction, *numbers)  # type: ignore[arg-type]  # as written
    day = (date.fromisoformat(first) - FIRST_DAY).days
    if what == "active":
        return ActiveWallet(day, currency, rest[0])
    return DayCounter(day, currency, rest[0], *numbers)  # type: ignore[arg-type]  # as written


def is_newer(new: bytes, old: bytes) -> bool:
    """Return whether a value is not older than another one of the same key. Values only grow."""
    return int(new.split()[0]) >= int(old.split()[0])


def date_of(day: int) -> date:
    """Return the day of a day number."""
    return FIRST_DAY + timedelta(day)
