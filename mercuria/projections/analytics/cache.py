"""The cache of daily counters in Redis: absolute values by partition, for the last weeks. All may vanish.

    analytics:sealed:day:2026-11-27          hash: <currency>:<kind>:<partition> -> <count> <minor units> <MAC>
    analytics:sealed:active:2026-11-27:EUR   set: <id of an active wallet, without hyphens> <MAC>
    analytics:sealed:positions               hash: partition -> <offset of the last ledger event that is counted> <MAC>

A write advances a partition's position, or has no effect: a write that is repeated, is late, or comes from a
previous owner of the partition changes nothing, and a missing write is detected.

A MAC covers the key, the field and the numbers (`redis.authenticity`). A value that no worker of this
installation wrote is removed; a forged counter or position also removes all positions, so that the workers
fill everything again. A client that can write to Redis can still restore an earlier count, and remove wallets
from a day. Workers of earlier versions use keys without `sealed`.
"""

import asyncio
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from hmac import compare_digest
from typing import Any, cast

from redis.asyncio import Redis

from mercuria.projections.analytics.counters import FIRST_DAY, NOWHERE, date_of
from mercuria.projections.analytics.queries import DailyMetrics, daily_metrics
from mercuria.projections.analytics.store import Counters, DayCounter
from mercuria.redis.authenticity import Authenticity
from mercuria.redis.circuit_breaker import CircuitBreaker
from mercuria.redis.client import UNAVAILABLE

DAYS = 35
"""The number of days that are kept."""
DAY_KEY = "analytics:sealed:day:{}"
ACTIVE_KEY = "analytics:sealed:active:{}:{}"
POSITIONS_KEY = "analytics:sealed:positions"

_PUT = """
local partition, before, after, life = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local position = (redis.call('HGET', KEYS[1], partition) or ''):match('^(-?%d+) ')
position = tonumber(position) or tonumber(ARGV[5])
if after <= position then return 1 end
if before > position then return 0 end
local touched = {}
local days = tonumber(ARGV[7])
for i = 8, 7 + 3 * days, 3 do
    redis.call('HSET', ARGV[i], ARGV[i + 1], ARGV[i + 2])
    touched[ARGV[i]] = true
end
for i = 8 + 3 * days, #ARGV, 2 do
    redis.call('SADD', ARGV[i], ARGV[i + 1])
    touched[ARGV[i]] = true
end
for key in pairs(touched) do redis.call('EXPIRE', key, life) end
redis.call('HSET', KEYS[1], partition, ARGV[6])
return 1
"""
"""Write counters and their position, unless it is reached already or previous counters are missing.

Arguments: the partition, its positions before and after, the lifetime in seconds, the position to assume if
there is none, the value of the position after, the number of daily counters, and the key, field and value of
each one; then the key and member of each active wallet.
"""


class AnalyticsCache:
    """The counters. Calls raise one of `redis.client.UNAVAILABLE` if Redis is or recently was unavailable."""

    def __init__(self, redis: Redis, authenticity: Authenticity) -> None:
        self._redis = redis
        self._authenticity = authenticity
        self._put = redis.register_script(_PUT)
        self._breaker = CircuitBreaker(UNAVAILABLE)

    async def positions(self) -> dict[int, int]:
        """Return the offset of the last counted ledger event by partition.

        A position that is not authentic is removed: one that is never reached would block all counters.
        """
        with self._breaker.unless_away():
            found = await cast(Any, self._redis.hgetall(POSITIONS_KEY))
            opened = {
                partition: self._opened(POSITIONS_KEY, partition, value) for partition, value in found.items()
            }
            forged = [partition for partition, numbers in opened.items() if numbers is None]
            if forged:
                await cast(Any, self._redis.hdel(POSITIONS_KEY, *forged))
        return {int(partition): int(numbers[0]) for partition, numbers in opened.items() if numbers}

    async def put(self, partition: int, counters: Counters) -> bool:
        """Write counters, except those of users.

        Returns:
            False if counters that changed before are missing. Then nothing is written.
        """
        after = self._sealed(POSITIONS_KEY, str(partition), str(counters.after))
        arguments: list[Any] = [
            *(partition, counters.before, counters.after, DAYS * 86_400, NOWHERE, after, len(counters.days))
        ]
        for day in counters.days:
            key, field = DAY_KEY.format(date_of(day.day)), f"{day.currency}:{day.kind}:{partition}"
            arguments += (key, field, self._sealed(key, field, f"{day.movements} {day.volume}"))
        for active in counters.active:
            key = ACTIVE_KEY.format(date_of(active.day), active.currency)
            arguments += (key, self._sealed(key, "", active.wallet_id))
        with self._breaker.unless_away():
            return bool(await self._put(keys=[POSITIONS_KEY], args=arguments))

    async def daily(self, since: date, until: date, partitions: Collection[int]) -> list[DailyMetrics] | None:
        """Return the metrics of the days from `since` to `until` (exclusive); None if any are missing."""
        if since < first_day():
            return None
        with self._breaker.unless_away():
            if not set(partitions) <= (await self.positions()).keys():
                return None
            days = [since + timedelta(days=number) for number in range((until - since).days)]
            found = dict(zip(days, await asyncio.gather(*map(self._day, days)), strict=True))
            for day, (_, is_whole) in found.items():
                if not is_whole:
                    # Without positions, the workers fill everything again.
                    await self._redis.delete(DAY_KEY.format(day), POSITIONS_KEY)
                    return None
            active = {
                (day, currency): len(await self.active(day, currency))
                for day, (counters, _) in found.items()
                for currency in sorted({each.currency for _, each in counters})
            }
        return [
            daily_metrics(day, currency, _of_currency(currency, found[day][0]), wallets)
            for (day, currency), wallets in active.items()
        ]

    async def active(self, day: date, currency: str) -> set[str]:
        """Return the ids of the wallets that were active on a day, without hyphens."""
        key = ACTIVE_KEY.format(day, currency)
        members = await cast(Any, self._redis.smembers(key))
        # A day may have hundreds of thousands of wallets.
        return await asyncio.to_thread(lambda: set(self._ids(key, members)))

    async def day(self, day: date) -> list[tuple[int, DayCounter]]:
        """Return the counters of a day, each after its partition."""
        return (await self._day(day))[0]

    async def _day(self, day: date) -> tuple[list[tuple[int, DayCounter]], bool]:
        """Return the counters of a day, and whether all values of the day are authentic."""
        key = DAY_KEY.format(day)
        values = await cast(Any, self._redis.hgetall(key))
        found = []
        for field, value in values.items():
            if (numbers := self._opened(key, field, value)) is not None:
                currency, kind, partition = field.decode().split(":")
                counter = DayCounter((day - FIRST_DAY).days, currency, kind, int(numbers[0]), int(numbers[1]))
                found.append((int(partition), counter))
        return found, len(found) == len(values)

    def _ids(self, key: str, members: Iterable[bytes]) -> Iterator[str]:
        for member in members:
            if (found := self._opened(key, b"", member)) is not None:
                yield found[0].decode()

    def _sealed(self, key: str, field: str, content: str) -> bytes:
        return f"{content} {self._authenticity.mac(_place(key, field.encode()), content.encode()).hex()}".encode()

    def _opened(self, key: str, field: bytes, value: bytes) -> Sequence[bytes] | None:
        """Return the words before the MAC; None if no worker wrote them there."""
        content, _, mac = value.rpartition(b" ")
        expected = self._authenticity.mac(_place(key, field), content).hex().encode()
        if not compare_digest(expected, mac):
            self._authenticity.distrust(key)
            return None
        return content.split()


def _place(key: str, field: bytes) -> bytes:
    return b"%b %b" % (key.encode(), field)


def first_day() -> date:
    """Return the first day that is kept."""
    return datetime.now(UTC).date() - timedelta(days=DAYS - 1)


def _of_currency(currency: str, counters: Iterable[tuple[int, DayCounter]]) -> dict[str, tuple[int, int]]:
    sums: defaultdict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
    for _, each in counters:
        if each.currency == currency:
            count, volume = sums[each.kind]
            sums[each.kind] = count + each.movements, volume + each.volume
    return sums
