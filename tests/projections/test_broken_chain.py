"""A ledger that somebody has changed: nothing is entered behind it, and everything else goes on."""

import logging
from collections.abc import Iterator
from contextlib import closing
from uuid import UUID

import psycopg2
import pytest

from mercuria.domain.commands import Position, WalletSide
from mercuria.domain.transaction import TransactionCompleted
from mercuria.projections.ledger.store import LedgerTables
from mercuria.projections.rows import SourceEvent
from tests.projections.conftest import as_owner

TIME_MS = 1_795_600_000_000


def deposit(sequence: int) -> SourceEvent:
    """Return the event of a deposit, the `sequence`-th of its partition."""
    event = TransactionCompleted(
        sequence=sequence,
        offset=sequence,
        transaction_id=UUID(int=sequence),
        initiated=Position(0, sequence, TIME_MS),
        kind="deposit",
        amount=5,
        currency="EUR",
        from_wallet=None,
        to_wallet=WalletSide(UUID(int=1), UUID(int=2), 5 * sequence, sequence + 1),
        reference=None,
        metadata={},
    )
    return SourceEvent(event, TIME_MS, sequence - 1)


@pytest.fixture
def tables(url: str) -> Iterator[LedgerTables]:
    """Return the ledger's tables, with a deposit in each of two partitions."""
    with closing(LedgerTables(url)) as opened:
        enter(opened, 1)
        yield opened


def enter(tables: LedgerTables, sequence: int) -> set[int]:
    """Enter a deposit in both partitions; return those that were not left alone."""
    rows = tables.rows(tables.begin([0, 1]))
    for partition in rows.checkpoints:
        rows.take(partition, [deposit(sequence)])
    tables.write(rows.payload(), rows.moved)
    return set(rows.moved)


def test_a_chain_that_lacks_its_end_is_left_alone_until_it_is_whole_again(
    tables: LedgerTables, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(psycopg2.connect(as_owner(url))) as tampering, tampering.cursor() as cursor:
        cursor.execute("ALTER TABLE ledger_entries DISABLE TRIGGER ledger_entries_are_final")
        cursor.execute("CREATE TEMPORARY TABLE gone AS SELECT * FROM ledger_entries WHERE partition = 1")
        cursor.execute("DELETE FROM ledger_entries WHERE partition = 1")
        cursor.execute("ALTER TABLE ledger_entries ENABLE ALWAYS TRIGGER ledger_entries_are_final")
        tampering.commit()
        caplog.set_level(logging.ERROR)
        assert enter(tables, 2) == {0}
        assert enter(tables, 3) == {0}
        assert [record.getMessage() for record in caplog.records] == [
            "The ledger of partition 1 ends with entry 0, and should end with 2: somebody has changed it, and nothing"
            " more is entered there. `mercuria ledger verify` says what is wrong."
        ]
        cursor.execute("INSERT INTO ledger_entries SELECT * FROM gone")
        tampering.commit()
    assert tables.begin([1])[1].emitted == 2 and not tables.broken
    tables.leave()
