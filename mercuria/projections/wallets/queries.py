"""History queries: wallets, their events and transactions in PostgreSQL, which lags slightly behind the log.

Lists are read page by page, newest items first (`postgres.paging`).
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal
from uuid import UUID

from msgspec import Struct

from mercuria.domain.commands import Position
from mercuria.domain.effective import text_of
from mercuria.domain.events import Failure, Status, TransactionStatus
from mercuria.domain.kinds import Kind
from mercuria.domain.transaction import Transaction
from mercuria.domain.wallet import Wallet
from mercuria.postgres.database import Database, Statements, queries
from mercuria.postgres.paging import Page, PagedList, milliseconds, moment
from mercuria.projections.checkpoints import Checkpoint, Positions
from mercuria.projections.wallets.store import WalletTables

_SQL = queries("mercuria.projections.wallets", "queries.sql")


class WalletEvent(Struct, frozen=True, kw_only=True):
    """What happened to a wallet; amounts in minor units.

    `command_id` is also the transaction's id where money moved. `change` is what it added to the balance, and
    `transaction_status` is `failed` for money that came back. `overdraft_limit` is the one that it was changed to, of
    `wallet.limits_changed` only.
    """

    type: Literal[
        "wallet.created", "wallet.balance_updated", "wallet.status_changed", "wallet.limits_changed"
    ]
    version: int
    occurred_at_ms: int
    command_id: UUID
    change: int
    balance: int
    status: Status
    reason: str | None
    kind: Kind | None
    transaction_status: TransactionStatus | None
    counterparty_id: UUID | None
    partition: int
    offset: int
    overdraft_limit: int | None = None


class History:
    """The queries.

    Args:
        lists: the same database for pages of lists, which may be slow.

    A page has at most `limit` items. It is None if the cursor is not one of this list's.

    Raises (all methods):
        DatabaseUnavailable: PostgreSQL is unavailable.
    """

    def __init__(self, database: Database, lists: Statements | None = None) -> None:
        self._database = database
        self._lists = lists or database
        self.positions = Positions(database, WalletTables.name)

    # Wallets.

    async def wallet(self, wallet_id: UUID) -> Wallet | None:
        """Return a wallet. The amount that its transfers have sent is not known here: `sent` is 0."""
        row = await self._database.row(_SQL["wallet"], {"id": wallet_id})
        return _wallet(row) if row is not None else None

    async def wallets(
        self,
        owner_id: UUID,
        *,
        status: Status | None = None,
        currency: str | None = None,
        limit: int = 20,
        cursor: str | None = None,
    ) -> Page[Wallet] | None:
        """Return a page of a user's wallets, newest first."""
        before = _WALLETS.read(cursor)
        if before is None:
            return None
        filters = {"owner_id": owner_id, "status": status, "currency": currency}
        rows = await self._rows("wallets", filters | before, limit)
        return _WALLETS.page(rows, limit, _wallet)

    async def events(
        self, wallet_id: UUID, *, limit: int = 20, cursor: str | None = None
    ) -> Page[WalletEvent] | None:
        """Return a page of a wallet's events, newest first."""
        before = _EVENTS.read(cursor)
        if before is None:
            return None
        rows = await self._rows("events", {"wallet_id": wallet_id} | before, limit)
        return _EVENTS.page(rows, limit, _event)

    # Transactions.

    async def transaction(self, transaction_id: UUID) -> Transaction | None:
        """Return a transaction; the newest one, if a client has reused the id."""
        row = await self._database.row(_SQL["transaction"], {"id": transaction_id})
        return _transaction(row) if row is not None else None

    async def transactions(
        self,
        *,
        person_id: UUID | None = None,
        wallet_id: UUID | None = None,
        status: TransactionStatus | None = None,
        kind: Kind | None = None,
        limit: int = 20,
        cursor: str | None = None,
    ) -> Page[Transaction] | None:
        """Return a page of the transactions that a user may see (None: of all transactions), newest first.

        The transactions of one wallet are in the order in which they reached the wallet.
        """
        filters = {
            "person_id": person_id,
            "wallet_id": wallet_id,
            "status": status,
            "kind": kind,
        }
        list_ = await self._list_for(person_id, wallet_id)
        before = list_.read(cursor)
        if before is None:
            return None
        name = _BY_STATUS.get(status, list_.name) if list_ is _OF_PERSON else list_.name
        return list_.page(await self._rows(name, filters | before, limit), limit, _transaction)

    async def _list_for(self, person_id: UUID | None, wallet_id: UUID | None) -> PagedList:
        if wallet_id is None:
            return _OF_PERSON if person_id else _OF_ALL
        if person_id is None:
            return _OF_WALLET
        wallet = await self.wallet(wallet_id)
        # Of another user's wallet, users see the transactions that they take part in.
        return _OF_WALLET if wallet is not None and wallet.owner_id == person_id else _OF_PERSON

    async def used_before(self, prefixes: Sequence[int]) -> dict[int, UUID]:
        """Return the prefixes (upper 64 bits of ids) that commands have used, with the id of one of them.

        The tables have the commands that moved or were to move money, and those that opened a wallet.
        """
        ranges = {
            "lows": [f"{prefix:016x}{0:016x}" for prefix in prefixes],
            "highs": [f"{prefix:016x}{2**64 - 1:016x}" for prefix in prefixes],
        }
        rows = await self._database.rows(_SQL["commands_between"], ranges)
        return {prefixes[row.number - 1]: row.id for row in rows}

    # Checkpoints.

    async def checkpoints(self) -> dict[int, Checkpoint]:
        """Return the checkpoint of each partition."""
        return await self.positions.checkpoints()

    async def caught_up(self, ends: Mapping[int, int], timeout_s: float) -> bool:
        """Wait until all events before `ends`, by partition, are projected; False after the timeout."""
        return await self.positions.caught_up(ends, timeout_s)

    async def _rows(self, name: str, parameters: Mapping[str, Any], limit: int) -> list[Any]:
        """Return the rows of a page, and one more if there is a next page."""
        return await self._lists.rows(_SQL[name], {**parameters, "limit": limit + 1})


def _before_wallet(at_ms: int | None = None, id_: bytes = b"\xff" * 16) -> dict[str, Any]:
    return {"before_at": moment(at_ms), "before_id": id_.hex()}


def _before_offset(offset: int = 2**63 - 1) -> dict[str, Any]:
    return {"before_offset": offset}


def _before_transaction(
    at_ms: int | None = None, partition: int = 2**31 - 1, offset: int = 2**63 - 1
) -> dict[str, Any]:
    return {"before_at": moment(at_ms), "before_partition": partition, "before_offset": offset}


def _place_of_transaction(row: Any) -> tuple[int, int, int]:
    return milliseconds(row.created_at), row.partition, row.command_offset


_WALLETS = PagedList(
    b"w", "wallets", ">q16s", lambda row: (milliseconds(row.created_at), row.id.bytes), _before_wallet
)
_EVENTS = PagedList(b"e", "events", ">q", lambda row: (row.command_offset,), _before_offset)
_OF_ALL = PagedList(b"a", "transactions", ">qiq", _place_of_transaction, _before_transaction)
_OF_PERSON = PagedList(b"p", "transactions_of_person", ">qiq", _place_of_transaction, _before_transaction)
_BY_STATUS: dict[str | None, str] = {
    "failed": "failed_transactions_of_person",
    "pending": "pending_transactions_of_person",
}
"""Statements for statuses that are rare in a history."""
_OF_WALLET = PagedList(b"t", "transactions_of_wallet", ">q", lambda row: (row.wallet_offset,), _before_offset)


def _wallet(row: Any) -> Wallet:
    return Wallet(
        row.id,
        row.owner_id,
        row.currency,
        row.balance,
        0,
        row.overdraft_limit,
        row.status,
        row.version,
        row.metadata,
        milliseconds(row.created_at),
        milliseconds(row.updated_at),
    )


def _event(row: Any) -> WalletEvent:
    return WalletEvent(
        type=row.type,
        version=row.version,
        occurred_at_ms=milliseconds(row.occurred_at),
        command_id=row.command_id,
        change=row.change,
        balance=row.balance,
        status=row.status,
        reason=row.reason,
        kind=row.kind,
        transaction_status=row.transaction_status,
        counterparty_id=row.counterparty_id,
        partition=row.partition,
        offset=row.command_offset,
        overdraft_limit=row.overdraft_limit,
    )


def _transaction(row: Any) -> Transaction:
    return Transaction(
        id=row.id,
        initiated=Position(row.partition, row.command_offset, milliseconds(row.created_at)),
        kind=row.kind,
        status=row.status,
        from_wallet_id=row.from_wallet_id,
        to_wallet_id=row.to_wallet_id,
        from_owner_id=row.from_owner_id,
        to_owner_id=row.to_owner_id,
        actor_id=row.actor_id,
        amount=row.amount,
        currency=row.currency,
        reference=row.reference,
        metadata=row.metadata,
        failure=Failure(row.failure_code, row.failure_detail) if row.failure_code else None,
        completed_at_ms=milliseconds(row.completed_at) if row.completed_at else None,
        effective_at=text_of(row.effective_at) if row.effective_at else None,
    )
