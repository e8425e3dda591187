"""A partition that is taken away while a transaction is under way: what is told keeps its order, whoever tells it."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import closing
from random import Random, randrange

import psycopg2
import pytest

from mercuria.kafka.cloudevents import read_numbered, read_wallet_event
from mercuria.kafka.producer import Record
from mercuria.projections.relay import Relay
from mercuria.projections.wallets.rows import Rows
from mercuria.projections.wallets.store import WalletTables
from tests.projections.conftest import as_owner, runner_of, writing
from tests.projections.logs import fetched, random_log

WITHIN_S = 30.0


async def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(WITHIN_S):
        while True:
            if condition():
                return
            await asyncio.sleep(0.01)


class Topic:
    """A partition of the next topic, which takes nothing while it is closed."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.is_asked = False
        self.open = asyncio.Event()

    async def append(self, _partition: int, records: Sequence[Record]) -> None:
        """Take records."""
        self.is_asked = True
        await self.open.wait()
        self.numbers += [read_numbered(record.value or b"")[0].sequence for record in records]


def cut(log: list[list[bytes]]) -> tuple[int, int, int]:
    """Return a partition and two offsets in it, with something to tell before, between and behind them."""
    for partition, events in enumerate(log):
        # By its command: what is there again, as the log has some events, is told once.
        ends: dict[int, int] = {}
        for offset, value in enumerate(events):
            event = read_wallet_event(value)[0]
            if getattr(event, "transaction_status", None) == "completed":
                ends.setdefault(event.offset, offset)
        if len(ends) > 3:
            first, second, *_ = ends.values()
            return partition, first + 1, second + 1
    raise AssertionError("a log of some hundred commands completes transactions")


# In the log of the second, an event that is there again comes before the second transaction.
@pytest.mark.parametrize("seed", [None, 950322835])
async def test_what_was_told_before_the_partition_was_lost_is_not_overtaken(
    url: str, seed: int | None
) -> None:
    seed = randrange(2**32) if seed is None else seed
    print(f"seed {seed}")
    log = random_log(Random(seed), 400)
    partition, second, third = cut(log)
    topic = Topic()
    relay = Relay(topic.append)

    async def seek(_partition: int, _offset: int) -> None:
        raise AssertionError("nothing is missing")

    runner = runner_of(WalletTables(url), Rows, read_wallet_event, seek, relay=relay)
    async with writing(runner):
        # The first letter is under way, and Kafka does not take it yet; the second one waits behind it.
        await runner.take(partition, fetched(log, partition, 0, second))
        await until(lambda: topic.is_asked)
        await runner.take(partition, fetched(log, partition, second, third))
        await until(lambda: relay.waiting == 2)
        with closing(psycopg2.connect(as_owner(url))) as other, other.cursor() as cursor:
            # The third transaction stands while the partition is lost.
            cursor.execute("LOCK TABLE outbox_events IN SHARE MODE")
            before = runner.checkpoints[partition].emitted
            await runner.take(partition, fetched(log, partition, third, len(log[partition])))
            await until(lambda: _waits_for_a_lock(cursor))
            runner.forget(partition)
            other.rollback()
        await until(lambda: not runner.is_waiting(partition) and _emitted(url, partition) > before)
        topic.open.set()
        # It comes back, and nothing follows; what is in the outbox is told all the same.
        runner.check_outbox([partition])
        last = _emitted(url, partition)
        await until(lambda: bool(topic.numbers) and topic.numbers[-1] == last)
        assert list(dict.fromkeys(topic.numbers)) == list(range(1, last + 1))


def _waits_for_a_lock(cursor: psycopg2.extensions.cursor) -> bool:
    cursor.execute("SELECT count(*) FROM pg_locks WHERE relation = 'outbox_events'::regclass AND NOT granted")
    row = cursor.fetchone()
    return row is not None and row[0] > 0


def _emitted(url: str, partition: int) -> int:
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT told FROM positions WHERE stage = 'transactions' AND partition = %s", [partition]
        )
        row = cursor.fetchone()
        return int(row[0]) if row else 0
