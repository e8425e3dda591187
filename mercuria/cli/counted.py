"""Checks of analytics: PostgreSQL's counters against the ledger, and their copies against PostgreSQL."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import date, timedelta
from typing import NamedTuple

from mercuria.kafka.client import read_log
from mercuria.projections.analytics.cache import DAYS, AnalyticsCache, first_day
from mercuria.projections.analytics.counters import NOWHERE, POSITION_KEY, date_of, is_newer, rows_of
from mercuria.projections.analytics.queries import counters_of
from mercuria.projections.analytics.store import Counters
from mercuria.projections.ledger.snapshot import Books
from mercuria.redis.authenticity import Authenticity
from mercuria.redis.client import connect
from mercuria.topics import COUNTERS_CHANGELOG

SHOWN = 20
WITHIN_S = 60.0
"""How long the copies may take to catch up with PostgreSQL."""
REST_WITHIN_S = 3.0
"""How long to wait for copies that do catch up until they stop changing."""
LOOK_EVERY_S = 1.0

Rows = dict[bytes, bytes]


class Copies(NamedTuple):
    """The result of comparing the copies. `moving` are partitions that kept changing throughout."""

    differences: list[str]
    moving: list[int]


def wrong_counters(found: Books) -> list[str]:
    """Return sentences about counters that differ from the sum of the ledger entries counted in them."""
    found.read_whole()
    sentences = [
        f"{day}, {currency}, {kind}, partition {partition}: {movements} with {volume} are counted, and the ledger has"
        f" {entries} with {sum_}."
        for day, currency, kind, partition, movements, volume, entries, sum_ in found.all(
            "wrong_days", limit=SHOWN
        )
    ]
    return sentences + [
        f"User {user_id}, {currency}, {kind}, {direction}, partition {partition}: {movements} with {volume} are"
        f" counted, and the ledger has {entries} with {sum_}."
        for user_id, currency, kind, direction, partition, movements, volume, entries, sum_ in found.all(
            "wrong_users", limit=SHOWN
        )
    ]


async def compare_copies(
    database: str, kafka: str, redis: str, authenticity: Authenticity, partitions: int
) -> Copies:
    """Compare the counters in RocksDB and in Redis with PostgreSQL's, once they stop changing.

    The counters in RocksDB are read from their changelog.

    Args:
        database, kafka, redis: the addresses of the servers.
        authenticity: verifies what workers have written to Redis.

    Raises:
        BooksUnavailable, KafkaError, redis.RedisError: a server is unavailable.
    """
    began_s = time.monotonic()
    first: dict[int, int] = {}
    async with connect(redis) as client:
        cache = AnalyticsCache(client, authenticity)
        while True:
            kept, cached = await _kept(kafka), await cache.positions()
            days = await _days(cache)
            counted = {
                number: await asyncio.to_thread(counters_of, database, number) for number in range(partitions)
            }
            first = first or {number: counters.after for number, counters in counted.items()}
            copied = {
                number: (_position(kept[number]), cached.get(number, NOWHERE)) for number in range(partitions)
            }
            moving = [
                number for number, counters in counted.items() if set(copied[number]) != {counters.after}
            ]
            if not moving:
                return Copies(await _differences(counted, kept, days, cache), [])
            behind, waited_s = list(_behind(first, copied)), time.monotonic() - began_s
            if waited_s > WITHIN_S or (waited_s > REST_WITHIN_S and not behind):
                return Copies(behind, moving)
            await asyncio.sleep(LOOK_EVERY_S)


def _behind(first: Mapping[int, int], copied: Mapping[int, tuple[int, int]]) -> Iterator[str]:
    """Return sentences about copies that have not reached PostgreSQL's position at the first check."""
    for number, (in_table, in_redis) in copied.items():
        if min(in_table, in_redis) < first[number]:
            yield (
                f"Partition {number} was counted up to {first[number]} in PostgreSQL {WITHIN_S:.0f} s ago, and is still"
                f" counted up to {in_table} in RocksDB, and up to {in_redis} in Redis."
            )


async def _kept(kafka: str) -> dict[int, Rows]:
    """Return the rows of the workers' tables, from their changelog."""
    kept: defaultdict[int, Rows] = defaultdict(dict)
    async for record in read_log(kafka, COUNTERS_CHANGELOG):
        rows = kept[record.partition]
        old = rows.get(record.key)
        if old is None or is_newer(record.value, old):
            rows[record.key] = record.value
    return kept


async def _days(cache: AnalyticsCache) -> dict[int, Rows]:
    """Return Redis' counters of days, as rows by partition."""
    rows: defaultdict[int, Rows] = defaultdict(dict)
    for number in range(DAYS):
        for partition, counter in await cache.day(first_day() + timedelta(days=number)):
            rows[partition].update(rows_of(Counters(NOWHERE, NOWHERE, [counter], [], [])))
    return rows


async def _differences(
    counted: Mapping[int, Counters], kept: Mapping[int, Rows], days: Mapping[int, Rows], cache: AnalyticsCache
) -> list[str]:
    """Compare copies that are at PostgreSQL's position."""
    sentences, active = list[str](), defaultdict[tuple[date, str], set[str]](set)
    first = f"day:{first_day()}".encode()
    for partition, counters in counted.items():
        rows = dict(rows_of(counters))
        recent = {key: value for key, value in rows.items() if key.startswith(b"day:") and key >= first}
        without_position = {key: value for key, value in kept[partition].items() if key != POSITION_KEY}
        sentences += _compare(partition, "RocksDB", rows, without_position)
        sentences += _compare(partition, "Redis", recent, days.get(partition, {}))
        for each in counters.active:
            active[date_of(each.day), each.currency].add(each.wallet_id)
    for (day, currency), ids in active.items():
        if day >= first_day() and await cache.active(day, currency) != ids:
            sentences.append(f"{day}, {currency}: Redis has other active wallets than PostgreSQL.")
    return sentences


def _compare(partition: int, where: str, there: Rows, rows: Rows) -> Iterator[str]:
    for key in there.keys() | rows.keys():
        if there.get(key) != rows.get(key):
            yield (
                f"Partition {partition}, {key.decode()}: {_text(rows.get(key))} in {where},"
                f" and {_text(there.get(key))} in PostgreSQL."
            )


def _text(value: bytes | None) -> str:
    return "missing" if value is None else value.decode()


def _position(rows: Rows) -> int:
    return int(rows.get(POSITION_KEY, NOWHERE))
