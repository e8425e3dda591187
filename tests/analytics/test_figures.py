"""Figures of the ledger: what is counted, and that it does not matter where entries are cut."""

from datetime import UTC, datetime
from uuid import UUID

from msgspec.structs import replace

from mercuria.domain.analytics import Figures, Total, UserTotal
from mercuria.domain.kinds import Kind
from mercuria.domain.ledger import Direction, Entry

ANN, BEN = UUID(int=1), UUID(int=2)
A, B = UUID(int=11), UUID(int=12)
MIDNIGHT_MS = int(datetime(2026, 3, 2, tzinfo=UTC).timestamp() * 1000)
DAY = MIDNIGHT_MS // 86_400_000


def entry(
    account: str, owner: UUID | None, kind: Kind, direction: Direction, amount: int, at_ms: int
) -> Entry:
    return Entry(
        id=UUID(int=9),
        sequence=1,
        transaction_id=UUID(int=8),
        kind=kind,
        account=account,
        owner_id=owner,
        direction=direction,
        amount=amount,
        currency="EUR",
        balance_after=None,
        wallet_version=None,
        occurred_at_ms=at_ms,
        hash="",
    )


ENTRIES = [
    entry("external:deposits", None, "deposit", "debit", 500, MIDNIGHT_MS - 1),
    entry(str(A), ANN, "deposit", "credit", 500, MIDNIGHT_MS - 1),
    entry(str(A), ANN, "transfer", "debit", 200, MIDNIGHT_MS),
    entry(str(B), BEN, "transfer", "credit", 200, MIDNIGHT_MS),
    entry(str(B), BEN, "withdrawal", "debit", 50, MIDNIGHT_MS + 1),
    entry("external:withdrawals", None, "withdrawal", "credit", 50, MIDNIGHT_MS + 1),
]


def test_each_transaction_counts_once_and_each_wallet_is_active_on_its_day() -> None:
    figures = Figures()
    figures.take(ENTRIES)
    assert figures.daily == {
        (DAY - 1, "EUR", "deposit"): Total(1, 500),
        (DAY, "EUR", "transfer"): Total(1, 200),
        (DAY, "EUR", "withdrawal"): Total(1, 50),
    }
    assert figures.active == {(DAY - 1, "EUR", A), (DAY, "EUR", A), (DAY, "EUR", B)}
    assert figures.users == {
        (ANN, "EUR", "deposit", "credit"): UserTotal(1, 500, MIDNIGHT_MS - 1),
        (ANN, "EUR", "transfer", "debit"): UserTotal(1, 200, MIDNIGHT_MS),
        (BEN, "EUR", "transfer", "credit"): UserTotal(1, 200, MIDNIGHT_MS),
        (BEN, "EUR", "withdrawal", "debit"): UserTotal(1, 50, MIDNIGHT_MS + 1),
    }


def test_what_has_an_effective_date_counts_on_its_day_and_on_that_of_its_record() -> None:
    figures = Figures()
    figures.take(replace(each, effective_at="1969-12-31T23:59:59.999Z") for each in ENTRIES[2:4])
    figures.take(ENTRIES[4:])
    assert figures.daily == {
        (DAY, "EUR", "transfer"): Total(1, 200),
        (DAY, "EUR", "withdrawal"): Total(1, 50),
    }
    assert figures.effective == {(-1, DAY, "EUR", "transfer"): Total(1, 200)}
    assert figures.active == {(DAY, "EUR", A), (DAY, "EUR", B)}
    assert figures.undated == {(DAY, "EUR", B)}
    assert figures.effective_active == {(-1, "EUR", A), (-1, "EUR", B)}


def test_it_does_not_matter_where_entries_are_cut() -> None:
    entries = [
        *ENTRIES[:4],
        *(replace(each, effective_at="2021-03-04T00:00:00.000Z") for each in ENTRIES[4:]),
    ]
    whole = Figures()
    whole.take(entries)
    for cut in range(len(entries) + 1):
        pieces = Figures()
        pieces.take(entries[:cut])
        pieces.take(entries[cut:])
        assert pieces == whole
