"""Receipts in a real RocksDB: what is found, and how they expire."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import rocksdict

from mercuria.agents.batch import Batch, Installation
from mercuria.agents.wallets import receipt_rows_of
from mercuria.config import current_settings
from mercuria.domain.commands import Deposit, OpenWallet
from mercuria.domain.wallet import Outcome
from mercuria.kafka.partitioning import Partitioner
from mercuria.kafka.sealing import Seal
from mercuria.tables.balance_rows import AppliedPosition
from mercuria.tables.receipts import MAX_EXPIRED_SEGMENTS, receipt_of, segment_row
from mercuria.tables.registration import register
from mercuria.topics import WALLET_COMMANDS
from mercuria.worker import App
from tests.protocol.test_batches import AllKnown, LogRecord

receipts = register(App(current_settings())).receipts
DAY_MS = receipts.lifetime_ms // 7


@pytest.fixture
def partition(tmp_path: Path) -> Iterator[int]:
    """Return a partition whose receipts are in a new database."""
    receipts.store._dbs[0] = rocksdict.Rdict(str(tmp_path / "receipts"), options=receipts.store._options())
    receipts.forget(0)
    yield 0
    receipts.store._dbs.pop(0).close()
    receipts.forget(0)


def keep(partition: int, first_offset: int, day: float, *ids: UUID) -> None:
    """Keep receipts of commands that were decided on a day."""
    decided = {
        each.int: receipt_of(Outcome(5, 2), first_offset + index, int(day * DAY_MS), bytes(8))
        for index, each in enumerate(ids)
    }
    receipts.write(partition, [segment_row(first_offset, decided)], first_offset)


def expire(partition: int, day: float) -> list[Any]:
    """Let expire what has expired on a day, and return the rows."""
    rows = receipts.expired(partition, int(day * DAY_MS))
    receipts.write(partition, rows, 1000)
    return rows


def test_receipts_are_found_until_they_expire(partition: int) -> None:
    first, second, third = uuid4(), uuid4(), uuid4()
    keep(partition, 0, 0, first, second)
    keep(partition, 10, 3, third)
    assert receipts.find(partition, [second, uuid4()]) == {
        second.int: receipt_of(Outcome(5, 2), 1, 0, bytes(8))
    }
    assert expire(partition, 7) == []
    assert len(expire(partition, 8)) == 1
    assert receipts.find(partition, [first, second, third]).keys() == {third.int}
    assert expire(partition, 9) == []
    assert len(expire(partition, 11)) == 1
    assert receipts.find(partition, [third]) == {}


def test_the_receipt_of_an_id_that_was_used_again_stays(partition: int) -> None:
    again, once = uuid4(), uuid4()
    keep(partition, 0, 0, again, once)
    keep(partition, 10, 7.5, again)
    assert len(expire(partition, 8)) == 1
    assert receipts.find(partition, [again, once])[again.int].offset == 10
    assert receipts.find(partition, [once]) == {}


def test_many_segments_expire_a_few_at_a_time(partition: int) -> None:
    count = 3 * MAX_EXPIRED_SEGMENTS + 1
    for number in range(count):
        keep(partition, number, 0, uuid4())
    expired = [len(expire(partition, 8)) for _ in range(5)]
    assert expired == [MAX_EXPIRED_SEGMENTS] * 3 + [1, 0]


def test_a_receipt_that_expires_within_a_batch_serves_until_the_batch_is_kept(partition: int) -> None:
    wallet_id, route = uuid4(), None
    while route is None or route.partition != partition:
        wallet_id = uuid4()
        route = Partitioner(8).of(wallet_id)
    opening = OpenWallet(id=uuid4(), wallet_id=wallet_id, owner_id=uuid4(), currency="EUR")
    deposits = [Deposit(id=uuid4(), wallet_id=wallet_id, amount=5, currency="EUR") for _ in range(2)]

    def decide(*asked: tuple[int, float, Any], position: int = -1, wallets: Any = None) -> tuple[Batch, Any]:
        """Decide commands, each at its offset and day, as far as the tables remember."""
        known = receipts.find(partition, [command.id for _, _, command in asked])
        installation = Installation(Partitioner(8), receipts.lifetime_ms, Seal(bytes(32)))
        batch = Batch(installation, partition, AppliedPosition(position), AllKnown(wallets or {}), known)
        records = [
            LogRecord(WALLET_COMMANDS, partition, offset, int(day * DAY_MS), route.key, b"")
            for offset, day, _ in asked
        ]
        for record, (_, _, command) in zip(records, asked, strict=True):
            batch.take(record, command)
        return batch, receipt_rows_of(receipts, batch, records[0], records[0].timestamp)

    opened, rows = decide((0, 0, opening), (1, 0, deposits[0]))
    receipts.write(partition, rows, 0)
    # A retry within the receipt's life, and a command after it, in one batch.
    asked = (2, 6.9, deposits[0]), (3, 7.1, deposits[1])
    before, rows = decide(*asked, position=1, wallets=opened.wallets)
    # Killed after the receipts were kept, and before the position was: all is decided again.
    receipts.write(partition, rows, 1)
    after, _ = decide(*asked, position=1, wallets=opened.wallets)
    assert [event.value for event in after.outputs.events] == [event.value for event in before.outputs.events]
