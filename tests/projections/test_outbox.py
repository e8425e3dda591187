"""What a projection publishes reaches the next topic: all of it, in order, once, and then it leaves the outbox."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from random import Random, randrange

import psycopg2
import pytest

from mercuria.embedded.postgres import Postgres
from mercuria.kafka.cloudevents import envelop_numbered, read_numbered, read_wallet_event
from mercuria.kafka.producer import Record
from mercuria.projections.checkpoints import Checkpoint
from mercuria.projections.relay import Relay, pack
from mercuria.projections.rows import SourceEvent
from mercuria.projections.runner import ProjectionRunner
from mercuria.projections.store import OutboxRow
from mercuria.projections.wallets.rows import Rows
from mercuria.projections.wallets.store import WalletTables
from tests.projections.conftest import empty, runner_of, writing
from tests.projections.logs import Log, fetched, model_of, random_log
from tests.projections.model import read_tables
from tests.projections.test_lost_partition import Topic, until
from tests.projections.unsteady import Group, straight, without_duplicates


@asynccontextmanager
async def stage(url: str, topic: Topic) -> AsyncIterator[tuple[ProjectionRunner, Relay]]:
    """Run the stage of transactions, which publishes to a topic."""
    relay = Relay(topic.append)

    async def seek(_partition: int, _offset: int) -> None:
        raise AssertionError("nothing is missing")

    one = runner_of(WalletTables(url), Rows, read_wallet_event, seek, relay=relay)
    async with writing(one):
        yield one, relay


def in_outbox(url: str) -> int:
    """Return how many letters the outbox holds."""
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM outbox_events")
        row = cursor.fetchone()
        return int(row[0]) if row else 0


def some_log(seed: int) -> tuple[Log, int]:
    """Return a log, and a partition in which something is published."""
    log = random_log(Random(seed), 400)
    records = [[Record(None, event, None) for event in events] for events in log]
    emitted = straight(records, rows_of(log), read_wallet_event, WalletTables.name)
    return log, next(partition for partition, outbound in enumerate(emitted) if outbound)


def rows_of(log: Log) -> Rows:
    """Return rows that follow nothing."""
    return Rows({partition: Checkpoint() for partition in range(len(log))})


async def test_what_is_published_while_postgresql_is_away_leaves_the_outbox_although_nothing_follows(
    postgres: Postgres, url: str
) -> None:
    seed = randrange(2**32)
    print(f"seed {seed}")
    log, partition = some_log(seed)
    topic = Topic()
    async with stage(url, topic) as (one, relay):
        await one.take(partition, fetched(log, partition, 0, len(log[partition])))
        await until(lambda: topic.is_asked and not one.is_waiting(partition))
        assert in_outbox(url) > 0
        await asyncio.to_thread(postgres.kill)
        try:
            topic.open.set()
            await until(lambda: one.outage.is_on)
        finally:
            await asyncio.to_thread(postgres.start)
        await until(lambda: in_outbox(url) == 0)
        await until(lambda: not one.outage.is_on and not relay.published)


async def test_what_another_worker_told_and_did_not_send_is_sent_although_nothing_follows(url: str) -> None:
    seed = randrange(2**32)
    print(f"seed {seed}")
    log, partition = some_log(seed)
    topic = Topic()
    topic.open.set()
    async with stage(url, topic) as (one, _):
        # It has the partition, and there is nothing in it yet.
        one.check_outbox([partition])
        await until(lambda: partition in one.checkpoints)
        with closing(WalletTables(url)) as other:
            rows = Rows(other.begin([partition]))
            rows.take(
                partition,
                [
                    SourceEvent(*read_wallet_event(event), offset)
                    for offset, event in enumerate(log[partition])
                ],
            )
            outbound = rows.outbound[partition]
            records = [
                Record(key, envelop_numbered(event, partition, time_ms), time_ms, trace)
                for event, time_ms, key, trace in outbound
            ]
            letter = OutboxRow(partition, outbound[-1].event.sequence, pack(records))
            other.write(rows.payload(), rows.moved, [letter])
        # The other one is dead. This one has the partition again, and reads on behind what is written.
        one.compare(rows.checkpoints)
        await until(lambda: in_outbox(url) == 0)
        assert topic.numbers == list(range(1, len(outbound) + 1))


@pytest.mark.parametrize("_example", range(4))
async def test_whatever_happens_to_workers_all_is_told_in_order_and_as_one_straight_run_tells_it(
    url: str, _example: int
) -> None:
    seed = randrange(2**32)
    print(f"seed {seed}")
    random = Random(seed)
    empty(url)
    log = random_log(random, 600)
    records = [
        [Record(b"%d" % (offset % 3), event, None, headers_of(offset)) for offset, event in enumerate(each)]
        for each in log
    ]
    group = Group(
        url, records, lambda: WalletTables(url), lambda _: Rows, read_wallet_event, random, strikes=25
    )
    await group.run()
    emitted = without_duplicates(group.topic, read_numbered)
    assert emitted == straight(records, rows_of(log), read_wallet_event, WalletTables.name)
    assert {len(headers) for each in emitted for _, _, headers in each} == {0, 2}, (
        "headers come through as well"
    )
    assert sum(map(len, emitted)) > 50
    assert read_tables(url) == model_of(log).comparable()


def headers_of(offset: int) -> list[tuple[str, bytes]]:
    """Return the headers of every other record."""
    if offset % 2:
        return []
    return [
        ("request-id", b"r-%d" % offset),
        ("traceparent", b"00-%032x-%016x-01" % (offset + 1, offset + 1)),
    ]
