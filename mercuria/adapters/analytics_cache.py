"""The counters of the last weeks' days in Redis, absolute and by partition; all of them may vanish.

    analytics:volume:2026-11-27             hash: <currency>:<kind>:<partition> -> minor units
    analytics:count:2026-11-27              the same: how many
    analytics:active:2026-11-27:<currency>  set: the ids of active wallets, without hyphens
    analytics:positions                     hash: partition -> offset of the last ledger event that is counted

What is written moves a partition's position on, or has no effect: what comes again, late, or from a worker that has
lost the partition changes nothing, and what is missing is noticed.
"""

import asyncio
from collections import defaultdict
from collections.abc import Collection, Iterable
from datetime import UTC, date, datetime, timedelta
from typing import Any, cast

from redis.asyncio import Redis

from mercuria.adapters.analytics import DailyMetrics, daily_metrics
from mercuria.adapters.analytics_tables import Counters, DayCounter
from mercuria.adapters.counters import FIRST_DAY, NOWHERE, date_of
from mercuria.adapters.redis import UNAVAILABLE
from mercuria.adapters.resting import Rest

DAYS = 35
"""So many days are kept."""
ACTIVE_KEY = "analytics:active:{}:{}"
POSITIONS_KEY = "analytics:positions"

_PUT = """
local partition, before, after, life = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local position = tonumber(redis.call('HGET', KEYS[1], partition)) or tonumber(ARGV[5])
if after <= position then return 1 end
if before > position then return 0 end
local touched = {}
local days = tonumber(ARGV[6])
for i = 7, 6 + 4 * days, 4 do
    local volume_key, count_key = 'analytics:volume:' .. ARGV[i], 'analytics:count:' .. ARGV[i]
    redis.call('HSET', count_key, ARGV[i + 1], ARGV[i + 2])
    redis.call('HSET', volume_key, ARGV[i + 1], ARGV[i + 3])
    touched[volume_key], touched[count_key] = true, true
end
for i = 7 + 4 * days, #ARGV, 2 do
    local key = 'analytics:active:' .. ARGV[i]
    redis.call('SADD', key, ARGV[i + 1])
    touched[key] = true
end
for key in pairs(touched) do redis.call('EXPIRE', key, life) end
redis.call('HSET', KEYS[1], partition, after)
return 1
"""
"""Write counters with the position after them, unless it is there already, or something is missing before them.

Arguments: the partition, its positions before and after, the life in seconds, the position where none is known, how
many counters of days, and for each its day, field, count and volume; then for each active wallet its day and currency,
and its id.
"""


class AnalyticsCache:
    """The counters. Every call raises one of `adapters.redis.UNAVAILABLE` when Redis is away, or was a moment ago."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._put = redis.register_script(_PUT)
        self._rest = Rest(UNAVAILABLE)

    async def positions(self) -> dict[int, int]:
        """Return by partition the offset of the last ledger event that is counted."""
        with self._rest.unless_away():
            found = await cast(Any, self._redis.hgetall(POSITIONS_KEY))
        return {int(partition): int(offset) for partition, offset in found.items()}

    async def put(self, partition: int, counters: Counters) -> bool:
        """Write counters; those of users are left out.

        Returns:
            False where some that have changed before are missing; nothing is written then.
        """
        arguments: list[Any] = [partition, counters.before, counters.after, DAYS * 86_400, NOWHERE]
        arguments.append(len(counters.days))
        for day in counters.days:
            field = f"{day.currency}:{day.kind}:{partition}"
            arguments += (str(date_of(day.day)), field, day.movements, str(day.volume))
        for active in counters.active:
            arguments += (f"{date_of(active.day)}:{active.currency}", active.wallet_id)
        with self._rest.unless_away():
            return bool(await self._put(keys=[POSITIONS_KEY], args=arguments))

    async def daily(self, since: date, until: date, partitions: Collection[int]) -> list[DailyMetrics] | None:
        """Return the metrics of the days from `since` to before `until`; None where not all of them are here."""
        if since < first_day():
            return None
        with self._rest.unless_away():
            if not set(partitions) <= (await self.positions()).keys():
                return None
            days = [since + timedelta(days=number) for number in range((until - since).days)]
            found = dict(zip(days, await asyncio.gather(*map(self.day, days)), strict=True))
            active = {
                (day, currency): await cast(Any, self._redis.scard(ACTIVE_KEY.format(day, currency)))
                for day, counters in found.items()
                for currency in sorted({each.currency for _, each in counters})
            }
        return [
            daily_metrics(day, currency, _of_currency(currency, found[day]), wallets)
            for (day, currency), wallets in active.items()
        ]

    async def active(self, day: date, currency: str) -> set[str]:
        """Return the ids of the wallets that were active on a day, without hyphens."""
        return {
            each.decode() for each in await cast(Any, self._redis.smembers(ACTIVE_KEY.format(day, currency)))
        }

    async def day(self, day: date) -> list[tuple[int, DayCounter]]:
        """Return the counters of a day, each behind its partition."""
        pipeline = self._redis.pipeline()
        pipeline.hgetall(f"analytics:count:{day}")
        pipeline.hgetall(f"analytics:volume:{day}")
        counts, volumes = await pipeline.execute()
        found = []
        for field, count in counts.items():
            currency, kind, partition = field.decode().split(":")
            number = (day - FIRST_DAY).days
            counter = DayCounter(number, currency, kind, int(count), int(volumes[field]))
            found.append((int(partition), counter))
        return found


def first_day() -> date:
    """Return the first day that is kept here."""
    return datetime.now(UTC).date() - timedelta(days=DAYS - 1)


def _of_currency(currency: str, counters: Iterable[tuple[int, DayCounter]]) -> dict[str, tuple[int, int]]:
    sums: defaultdict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
    for _, each in counters:
        if each.currency == currency:
            count, volume = sums[each.kind]
            sums[each.kind] = count + each.movements, volume + each.volume
    return sums
