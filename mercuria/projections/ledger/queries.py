"""Queries of the ledger in PostgreSQL, and of wallets at a point in time. They lag slightly behind the log.

`projections.ledger.store` writes the entries, and `projections.wallets.store` writes the events of wallets.
"""

from typing import Any
from uuid import UUID

from msgspec import Struct

from mercuria.domain.effective import text_of
from mercuria.domain.events import Status, TransactionStatus
from mercuria.domain.kinds import Kind
from mercuria.domain.ledger import Direction, entry_id
from mercuria.postgres.database import Statements, queries
from mercuria.postgres.paging import LAST_MS, Page, PagedList, milliseconds, moment

_SQL = queries("mercuria.projections.ledger", "queries.sql")


class Recorded(Struct, frozen=True, kw_only=True):
    """An entry of the ledger; amounts in minor units, `hash` in hexadecimal digits.

    `account` is a wallet's id or an external account, which has no balance and no version. `effective_at` is as
    `domain.effective` writes it.
    """

    id: UUID
    transaction_id: UUID
    kind: Kind
    account: str
    direction: Direction
    amount: int
    currency: str
    balance_after: int | None
    wallet_version: int | None
    occurred_at_ms: int
    hash: str
    effective_at: str | None = None


class WalletState(Struct, frozen=True):
    """A wallet between two of its events, in minor units. Version 0 is before it was opened.

    `overdraft_limit` is None where it was never changed since.
    """

    balance: int = 0
    status: Status | None = None
    version: int = 0
    updated_at_ms: int = 0
    overdraft_limit: int | None = None


class StatementLine(Struct, frozen=True, kw_only=True):
    """How the balance of a wallet changed: by `change` to `balance`, in minor units. `offset` is its place."""

    offset: int
    occurred_at_ms: int
    kind: Kind
    transaction_status: TransactionStatus
    transaction_id: UUID
    counterparty_id: UUID | None
    change: int
    balance: int
    reference: str | None
    effective_at: str | None = None


class Ledger:
    """The queries.

    A page has at most `limit` entries, from `since_ms` to `until_ms` (exclusive). It is None if the cursor is
    not one of the ledger's. A cursor is valid with any filters.

    Raises (all methods):
        DatabaseUnavailable: PostgreSQL is unavailable.
    """

    def __init__(self, database: Statements) -> None:
        self._database = database

    # Entries.

    async def entries(
        self,
        *,
        owner_id: UUID | None = None,
        wallet_id: UUID | None = None,
        currency: str | None = None,
        since_ms: int = 0,
        until_ms: int = LAST_MS,
        limit: int = 20,
        cursor: str | None = None,
    ) -> Page[Recorded] | None:
        """Return a page of the entries of a wallet, else of a user's wallets, else of all; newest first."""
        before = _ENTRIES.read(cursor)
        if before is None:
            return None
        # Timestamps in UTC sort as texts. The page begins at `until_ms` even if the cursor is from a longer period.
        until = _before_entry(until_ms, partition=-1)
        parameters = min(until, before, key=lambda place: str(place["before_at"])) | {
            "owner_id": owner_id,
            "wallet_id": wallet_id,
            "currency": currency,
            "since": moment(since_ms),
            "limit": limit + 1,
        }
        name = _statement(owner_id, wallet_id, currency)
        return _ENTRIES.page(await self._database.rows(_SQL[name], parameters), limit, _entry)

    async def entries_of_transaction(self, transaction_id: UUID, completed_at_ms: int) -> list[Recorded]:
        """Return the debit and credit of a transaction with this completion time; none if not entered yet."""
        parameters = {"transaction_id": transaction_id, "completed_at": moment(completed_at_ms)}
        return [_entry(row) for row in await self._database.rows(_SQL["entries_of_transaction"], parameters)]

    # Wallets at a point in time. A place separates a wallet's events before a timestamp from those at or after it.

    async def place(self, wallet_id: UUID, at_ms: int) -> int:
        """Return the place of a timestamp among a wallet's events."""
        row = await self._database.row(_SQL["place"], {"wallet_id": wallet_id, "moment": moment(at_ms)})
        assert row is not None, "a search ends"
        return int(row.place)

    async def state(self, wallet_id: UUID, place: int) -> WalletState:
        """Return a wallet as it was at a place."""
        row = await self._database.row(_SQL["event_before"], {"wallet_id": wallet_id, "place": place})
        if row is None:
            return WalletState()
        return WalletState(
            row.balance, row.status, row.version, milliseconds(row.occurred_at), row.overdraft_limit
        )

    async def has_event_since(self, wallet_id: UUID, at_ms: int) -> bool:
        """Return whether a wallet has an event at or after a time: then all earlier ones are projected."""
        parameters = {"wallet_id": wallet_id, "moment": moment(at_ms)}
        return await self._database.row(_SQL["event_since"], parameters) is not None

    async def lines(self, wallet_id: UUID, start: int, end: int, limit: int) -> list[StatementLine]:
        """Return the first `limit` changes of a wallet's balance between two places, oldest first."""
        parameters = {"wallet_id": wallet_id, "start": start, "end": end, "limit": limit}
        return [_line(row) for row in await self._database.rows(_SQL["lines"], parameters)]


def _statement(owner_id: UUID | None, wallet_id: UUID | None, currency: str | None) -> str:
    if wallet_id is not None:
        return "entries_of_wallet"
    if owner_id is not None:
        return "entries_of_person"
    return "entries" if currency is None else "entries_of_currency"


def _before_entry(
    at_ms: int | None = None, partition: int = 2**31 - 1, sequence: int = 2**63 - 1
) -> dict[str, Any]:
    return {"before_at": moment(at_ms), "before_partition": partition, "before_sequence": sequence}


def _place_of_entry(row: Any) -> tuple[int, int, int]:
    return milliseconds(row.occurred_at), row.partition, row.sequence


_ENTRIES = PagedList(b"l", "entries", ">qiq", _place_of_entry, _before_entry)


def _entry(row: Any) -> Recorded:
    hash_ = bytes(row.hash)
    return Recorded(
        id=entry_id(hash_),
        transaction_id=row.transaction_id,
        kind=row.kind,
        account=row.external or str(row.wallet_id),
        direction=row.direction,
        amount=row.amount,
        currency=row.currency,
        balance_after=row.balance_after,
        wallet_version=row.wallet_version,
        occurred_at_ms=milliseconds(row.occurred_at),
        hash=hash_.hex(),
        effective_at=text_of(row.effective_at) if row.effective_at else None,
    )


def _line(row: Any) -> StatementLine:
    return StatementLine(
        offset=row.command_offset,
        occurred_at_ms=milliseconds(row.occurred_at),
        kind=row.kind,
        transaction_status=row.transaction_status,
        transaction_id=row.command_id,
        counterparty_id=row.counterparty_id,
        change=row.change,
        balance=row.balance,
        reference=row.reference,
        effective_at=text_of(row.effective_at) if row.effective_at else None,
    )
