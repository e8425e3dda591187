"""What PostgreSQL's tables must hold after some events, said in the plainest way; and what they do hold."""

from collections import defaultdict
from contextlib import closing
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import psycopg2
from msgspec.structs import replace
from psycopg2.extras import NamedTupleCursor, register_uuid

from mercuria.domain.commands import Position
from mercuria.domain.events import BalanceUpdated, CommandRejected, Failure, LimitsChanged, WalletCreated
from mercuria.domain.transaction import Transaction, refused_transaction, transaction_of
from mercuria.domain.wallet import Wallet, evolve
from mercuria.kafka.cloudevents import read_wallet_event


class Happening(NamedTuple):
    """An accepted event, as far as `wallet_events` has it."""

    wallet_id: UUID
    offset: int
    partition: int
    version: int
    time_ms: int
    owner_id: UUID
    command_id: UUID
    change: int
    balance: int
    status: str
    initiated: Position | None
    limit: int | None


class Tables(NamedTuple):
    """The contents of the tables. Transactions by the record that began them, with whether they were refused."""

    wallets: dict[UUID, Wallet]
    events: set[Happening]
    transactions: dict[Position, tuple[Transaction, bool]]


class Model:
    """Folds events, an event after the other; the partitions may come in any order."""

    def __init__(self) -> None:
        self.tables = Tables({}, set(), {})
        self._highest: defaultdict[int, int] = defaultdict(lambda: -1)

    def take(self, partition: int, value: bytes) -> None:
        """Take the next record of a partition of the event topic."""
        event, time_ms = read_wallet_event(value)
        if event.offset <= self._highest[partition]:
            return
        self._highest[partition] = event.offset
        if isinstance(event, CommandRejected):
            position = Position(partition, event.offset, time_ms)
            refused = refused_transaction(event, position)
            if refused is not None:
                self.tables.transactions[position] = refused, True
            return
        before = self.tables.wallets.get(event.wallet_id)
        after = evolve(before, event, time_ms)
        assert after is not None
        self.tables.wallets[event.wallet_id] = after
        self.tables.events.add(
            Happening(
                event.wallet_id,
                event.offset,
                partition,
                event.version,
                time_ms,
                event.owner_id,
                event.command_id if not isinstance(event, BalanceUpdated) else event.transaction_id,
                0 if isinstance(event, WalletCreated) or before is None else event.balance - before.balance,
                event.balance,
                event.status,
                event.initiated if isinstance(event, BalanceUpdated) else None,
                event.overdraft_limit if isinstance(event, LimitsChanged) else None,
            )
        )
        if isinstance(event, BalanceUpdated):
            known = self.tables.transactions.get(event.initiated)
            if known is None or known[0].status == "pending":
                self.tables.transactions[event.initiated] = transaction_of(event, time_ms), False

    def comparable(self) -> Tables:
        """Return the tables without what PostgreSQL does not have: what wallets have sent, and remember."""
        wallets = {
            key: replace(wallet, sent=0, earlier_limits=()) for key, wallet in self.tables.wallets.items()
        }
        return self.tables._replace(wallets=wallets)


def read_tables(url: str) -> Tables:
    """Return what the tables hold."""
    with closing(psycopg2.connect(url, cursor_factory=NamedTupleCursor)) as connection:
        register_uuid(conn_or_curs=connection)
        with connection.cursor() as cursor:
            return Tables(
                {row.id: _wallet(row) for row in _rows(cursor, "wallets")},
                {
                    _happening(row)
                    for row in _rows(
                        cursor, "wallet_events LEFT JOIN wallet_limits USING (wallet_id, command_offset)"
                    )
                },
                {
                    _position(row): (_transaction(row), row.is_refused)
                    for row in _rows(cursor, "transactions")
                },
            )


def checkpoints(url: str) -> dict[int, tuple[int, int]]:
    """Return how far each partition is: the record read last, and the highest command."""
    connection = psycopg2.connect(url, cursor_factory=NamedTupleCursor)
    try:
        with connection.cursor() as cursor:
            return {
                row.partition: (row.read_offset, row.command_offset) for row in _rows(cursor, "positions")
            }
    finally:
        connection.close()


def _rows(cursor: Any, table: str) -> list[Any]:
    cursor.execute(f"SELECT * FROM {table}")
    rows: list[Any] = cursor.fetchall()
    return rows


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
        _ms(row.created_at),
        _ms(row.updated_at),
    )


def _happening(row: Any) -> Happening:
    return Happening(
        row.wallet_id,
        row.command_offset,
        row.partition,
        row.version,
        _ms(row.occurred_at),
        row.owner_id,
        row.command_id,
        row.change,
        row.balance,
        row.status,
        Position(row.initiated_partition, row.initiated_offset, _ms(row.initiated_at)) if row.kind else None,
        row.overdraft_limit,
    )


def _position(row: Any) -> Position:
    return Position(row.partition, row.command_offset, _ms(row.created_at))


def _transaction(row: Any) -> Transaction:
    return Transaction(
        id=row.id,
        initiated=_position(row),
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
        completed_at_ms=_ms(row.completed_at) if row.completed_at else None,
        effective_at=row.effective_at and f"{row.effective_at.isoformat(timespec='milliseconds')[:-6]}Z",
    )


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)
