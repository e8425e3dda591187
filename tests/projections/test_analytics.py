"""Analytics counts each entry of the ledger once, however they come, and whoever dies."""

from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import date
from random import Random
from typing import Any

import psycopg2
import pytest
from psycopg2 import sql

from mercuria.domain.ledger import Entry
from mercuria.postgres.database import Database, DatabaseUnavailable
from mercuria.projections.analytics.counters import rows_of
from mercuria.projections.analytics.queries import Analytics, counters_of
from mercuria.projections.analytics.rows import AnalyticsRows
from mercuria.projections.analytics.store import AnalyticsTables, Counters
from mercuria.projections.ledger.snapshot import books
from mercuria.projections.rows import MissingEventError, SourceEvent
from mercuria.projections.wallets.rows import timestamp
from tests.projections.conftest import as_owner
from tests.projections.test_ledger_reads import Books

Log = dict[int, list[SourceEvent]]
"""By partition, the records of the ledger topic."""

IS_WAITED_FOR = "SELECT EXISTS (SELECT FROM pg_locks WHERE relation = %s::regclass AND NOT granted)"


@pytest.fixture
def tables(url: str) -> Iterator[list[AnalyticsTables]]:
    """Return the tables, as two workers write them."""
    opened = [AnalyticsTables(url), AnalyticsTables(url)]
    yield opened
    for each in opened:
        each.close()


def log_of(books: Books) -> Log:
    """Return the records that tell of entries; some come twice."""
    entries: defaultdict[int, list[Entry]] = defaultdict(list)
    for partition, entry in reversed(books.entries):
        entries[partition].append(entry)
    log: Log = {}
    for partition, of_partition in entries.items():
        told = [*of_partition[:3], *of_partition]
        log[partition] = [
            SourceEvent(entry, entry.occurred_at_ms, offset) for offset, entry in enumerate(told)
        ]
    return log


def count(
    tables: AnalyticsTables, log: Log, until: dict[int, int], *, dies: bool = False
) -> dict[int, Counters]:
    """Count what follows where the tables are, up to an offset by partition; perhaps die before it is kept."""
    checkpoints = tables.begin(sorted(log))
    rows = AnalyticsRows(checkpoints)
    for partition in checkpoints:
        rows.take(partition, log[partition][: until[partition]])
    if dies:
        tables.close()
        return {}
    tables.write(rows.payload(), rows.moved)
    return tables.take_written()


def recounted(url: str) -> list[object]:
    """Return what differs from a recount over the ledger's entries."""
    with books(url) as found:
        return [*found.all("wrong_days", limit=20), *found.all("wrong_users", limit=20)]


def test_every_figure_is_what_a_recount_says(random: Random, url: str, tables: list[AnalyticsTables]) -> None:
    made = Books(random, url)
    made.add(150)
    log = log_of(made)
    until = dict.fromkeys(log, 0)
    copies: dict[int, dict[bytes, bytes]] = defaultdict(dict)
    while any(until[partition] < len(log[partition]) for partition in log):
        for partition, told in log.items():
            until[partition] = min(until[partition] + random.randrange(40), len(told))
        worker = random.choice(tables)
        if random.random() < 0.3:
            count(worker, log, until, dies=True)
        for partition, counters in count(worker, log, until).items():
            copies[partition].update(rows_of(counters))
        assert recounted(url) == []
    # What was told on the way adds up to what stands there.
    for partition in log:
        assert copies[partition] == dict(rows_of(counters_of(url, partition)))
        assert any(copies[partition])


async def test_the_figures_by_effective_date_are_what_a_plain_count_says(
    random: Random, url: str, tables: list[AnalyticsTables]
) -> None:
    made = Books(random, url)
    made.add(150)
    log = log_of(made)
    until = {partition: len(told) for partition, told in log.items()}
    for part in (3, 2, 1):
        count(random.choice(tables), log, {number: length // part for number, length in until.items()})
    expected: dict[tuple[str, str], dict[str, Any]] = defaultdict(lambda: {"wallets": set()})
    for _, entry in made.entries:
        day = (entry.effective_at or timestamp(entry.occurred_at_ms))[:10]
        figures = expected[day, entry.currency]
        if entry.direction == "credit":
            movements, volume = figures.get(entry.kind, (0, 0))
            figures[entry.kind] = movements + 1, volume + entry.amount
        if entry.owner_id is not None:
            figures["wallets"].add(entry.account)
    database = Database(url)
    try:
        found = await Analytics(database).daily_effective(date.min, date.max, None)
        (first, currency) = min(expected)
        some = await Analytics(database).daily_effective(date.min, date.fromisoformat(first), currency)
    finally:
        await database.close()
    assert {(str(each.day), each.currency) for each in found} == expected.keys()
    for each in found:
        figures = expected[str(each.day), each.currency]
        kinds = (each.deposits, each.withdrawals, each.transfers)
        assert kinds == tuple(figures.get(kind, (0, 0)) for kind in ("deposit", "withdrawal", "transfer"))
        assert each.active_wallets == len(figures["wallets"])
    assert some == [each for each in found if (str(each.day), each.currency) == (first, currency)]


@pytest.mark.parametrize(
    "table",
    [
        "daily_totals",
        "daily_active_wallets",
        "user_totals",
        "effective_totals",
        "effective_active_wallets",
        "positions",
    ],
)
def test_what_a_connection_took_with_it_is_counted_later(
    random: Random, url: str, tables: list[AnalyticsTables], table: str
) -> None:
    made = Books(random, url)
    made.add(50)
    log = log_of(made)
    until = {partition: len(told) for partition, told in log.items()}
    count(tables[0], log, {partition: length // 2 for partition, length in until.items()})
    with ThreadPoolExecutor(1) as thread, closing(psycopg2.connect(as_owner(url))) as other:
        with other.cursor() as cursor:
            # The checkpoints can still be locked; who writes this table waits, and loses the connection.
            cursor.execute(sql.SQL("LOCK TABLE {} IN SHARE MODE").format(sql.Identifier(table)))
            counting = thread.submit(count, tables[0], log, until)
            while not counting.done():
                cursor.execute(IS_WAITED_FOR, [table])
                if cursor.fetchone() == (True,):
                    tables[0].interrupt()
        with pytest.raises(DatabaseUnavailable):
            counting.result()
    count(tables[0], log, until)
    assert recounted(url) == []


def test_an_entry_that_is_missing_is_not_passed_over(
    random: Random, url: str, tables: list[AnalyticsTables]
) -> None:
    made = Books(random, url)
    made.add(20)
    log = log_of(made)
    partition = next(iter(log))
    del log[partition][6]
    with pytest.raises(MissingEventError):
        count(tables[0], log, {number: len(told) for number, told in log.items()})


def test_a_recount_finds_what_was_changed(random: Random, url: str, tables: list[AnalyticsTables]) -> None:
    made = Books(random, url)
    made.add(20)
    log = log_of(made)
    count(tables[0], log, {number: len(told) for number, told in log.items()})
    assert recounted(url) == []
    with tables[0]._connection as connection, connection.cursor() as cursor:
        cursor.execute(
            "UPDATE daily_totals SET volume = volume + 1 WHERE day = (SELECT min(day) FROM daily_totals)"
        )
        cursor.execute("UPDATE user_totals SET count = count + 1")
        cursor.execute("UPDATE effective_totals SET count = count + 1")
    with books(url) as found:
        assert [row for row in found.all("wrong_days", limit=200) if "effective, recorded on" in row[2]]
        assert found.all("wrong_days", limit=20)
        assert found.all("wrong_users", limit=20)
