"""Rows of the tables `wallets`, `wallet_events` and `transactions`, built from events.

The rows are COPY payloads, since COPY is the fastest way to write rows to PostgreSQL.
`projections.wallets.store` writes them.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple, cast
from uuid import UUID

import msgspec

from mercuria.domain.commands import Position
from mercuria.domain.events import (
    TYPES,
    Accepted,
    BalanceUpdated,
    CommandRejected,
    LimitsChanged,
    StatusChanged,
    WalletCreated,
)
from mercuria.domain.transaction import (
    Transaction,
    TransactionEvent,
    TransactionFailed,
    ended,
    refused,
    refused_transaction,
    transaction_of,
)
from mercuria.postgres.copy_text import NULL, array, hex_of, hex_or_null, text, timestamp
from mercuria.projections.checkpoints import Checkpoint
from mercuria.projections.rows import CheckpointedRows, OutboundEvent, SourceEvent

NO_METADATA = "{}"

_encode_json = msgspec.json.Encoder().encode


class _Change(NamedTuple):
    """The last event of a wallet, and its time."""

    event: Accepted
    time_ms: int


class Texts(NamedTuple):
    """COPY payloads. Some rows of `transactions` may exist already.

    `changes` has the parameters of the update of the `changed` existing wallets: the text of an array for
    each one. `limits` has those of the wallets whose limit changes, and `limit_changes` has the rows of these
    changes.
    """

    events: str
    transactions: str
    openings: str
    changes: dict[str, str]
    changed: int
    limit_changes: str = ""
    limits: dict[str, str] = {}  # noqa: RUF012  # The default of a NamedTuple, which is never changed.


class Rows(CheckpointedRows):
    """Rows of some events of wallets."""

    def __init__(self, checkpoints: Mapping[int, Checkpoint]) -> None:
        super().__init__(checkpoints)
        self._events: list[str] = []
        self._openings: dict[int, tuple[WalletCreated, int]] = {}
        self._changes: dict[int, _Change] = {}
        self._transactions: list[str] = []
        self._limit_changes: list[str] = []
        self._limits: dict[UUID, int] = {}
        # If both a transfer's debit and its end are among the events, in any order, the end is enough.
        self._pending: dict[Position, Transaction] = {}
        self._ended: set[Position] = set()

    def take(self, partition: int, events: Iterable[SourceEvent]) -> None:
        """Add the next records of a partition. Records that are projected already are skipped."""
        checkpoint = self.checkpoints[partition]
        read, command, emitted, outbound = (
            checkpoint.read,
            checkpoint.command,
            checkpoint.emitted,
            self.outbound[partition],
        )
        for event, time_ms, offset, key, trace in events:
            if offset <= read:
                continue
            read = offset
            if event.offset <= command:
                continue
            command = event.offset
            end: TransactionEvent | None = None
            if type(event) is CommandRejected:
                end = self._take_refusal(partition, event, time_ms, emitted + 1)
            else:
                self._take(partition, cast(Accepted, event), time_ms)
                if type(event) is BalanceUpdated:
                    end = ended(event, emitted + 1)
            if end is not None:
                emitted += 1
                if emitted > checkpoint.sent:
                    outbound.append(OutboundEvent(end, time_ms, key, trace))
        self.checkpoints[partition] = Checkpoint(
            read, command, emitted=emitted, sent=max(checkpoint.sent, emitted)
        )

    @property
    def size(self) -> int:
        """The approximate number of rows."""
        return len(self._events) + len(self._transactions) + len(self._pending)

    def payload(self) -> Texts:
        """Return the COPY payloads."""
        pending = map(_transaction_row, self._pending.values())
        changed = [change for number, change in self._changes.items() if number not in self._openings]
        return Texts(
            events="".join(self._events),
            transactions="".join([*self._transactions, *pending]),
            openings="".join(
                _wallet_row(opened, opened_at_ms, self._changes[number])
                for number, (opened, opened_at_ms) in self._openings.items()
            ),
            changes=_arrays(changed),
            changed=len(changed),
            limit_changes="".join(self._limit_changes),
            limits={
                "ids": array(map(hex_of, self._limits)),
                "limits": array(map(str, self._limits.values())),
            },
        )

    # Events.

    def _take(self, partition: int, event: Accepted, time_ms: int) -> None:
        number = event.wallet_id.int
        if type(event) is BalanceUpdated:
            self._events.append(_balance_row(partition, event, time_ms))
            self._take_transaction(transaction_of(event, time_ms))
        else:
            other = cast(WalletCreated | StatusChanged | LimitsChanged, event)
            self._events.append(_other_row(partition, other, time_ms))
            if type(event) is WalletCreated:
                self._openings[number] = event, time_ms
            elif type(event) is LimitsChanged:
                self._limit_changes.append(
                    f"{hex_of(event.wallet_id)}\t{event.offset}\t{event.overdraft_limit}\n"
                )
                self._limits[event.wallet_id] = event.overdraft_limit
        self._changes[number] = _Change(event, time_ms)

    def _take_transaction(self, transaction: Transaction) -> None:
        initiated = transaction.initiated
        if transaction.status == "pending":
            if initiated not in self._ended:
                self._pending[initiated] = transaction
            return
        if transaction.kind == "transfer":
            self._pending.pop(initiated, None)
            self._ended.add(initiated)
        self._transactions.append(_transaction_row(transaction))

    def _take_refusal(
        self, partition: int, event: CommandRejected, time_ms: int, sequence: int
    ) -> TransactionFailed | None:
        transaction = refused_transaction(event, Position(partition, event.offset, time_ms))
        if transaction is None:
            return None
        self._transactions.append(_transaction_row(transaction, is_refused=True))
        return refused(transaction, sequence)


# The text of rows.


def _balance_row(partition: int, event: BalanceUpdated, time_ms: int) -> str:
    initiated, status = event.initiated, event.transaction_status
    is_listed, counterparty = "t", NULL
    if event.kind == "transfer":
        sender, receiver = event.from_wallet, event.to_wallet
        assert sender is not None and receiver is not None, "a transfer has two sides"
        other = sender if status == "completed" else receiver
        counterparty = hex_of(other.wallet_id)
        if status == "failed" or (status == "completed" and sender.owner_id == event.owner_id):
            is_listed = "f"
    goes_out = event.to_wallet is None or status == "pending"
    return (
        f"{hex_of(event.wallet_id)}\t{event.offset}\t{partition}\twallet.balance_updated\t{event.version}"
        f"\t{timestamp(time_ms)}\t{hex_of(event.owner_id)}\t{hex_of(event.transaction_id)}"
        f"\t{-event.amount if goes_out else event.amount}\t{event.balance}\t{event.status}\t{NULL}"
        f"\t{event.kind}\t{status}\t{counterparty}"
        f"\t{timestamp(initiated.time_ms)}\t{initiated.partition}\t{initiated.offset}\t{is_listed}\n"
    )


def _other_row(partition: int, event: WalletCreated | StatusChanged | LimitsChanged, time_ms: int) -> str:
    reason = None if isinstance(event, WalletCreated) else event.reason
    return (
        f"{hex_of(event.wallet_id)}\t{event.offset}\t{partition}\t{TYPES[type(event)]}\t{event.version}"
        f"\t{timestamp(time_ms)}\t{hex_of(event.owner_id)}\t{hex_of(event.command_id)}"
        f"\t0\t{event.balance}\t{event.status}\t{text(reason)}"
        f"\t{NULL}\t{NULL}\t{NULL}\t{NULL}\t{NULL}\t{NULL}\tf\n"
    )


def _wallet_row(opened: WalletCreated, opened_at_ms: int, last: _Change) -> str:
    return (
        f"{hex_of(opened.wallet_id)}\t{hex_of(opened.owner_id)}\t{opened.currency}\t{last.event.balance}"
        f"\t{opened.overdraft_limit}\t{last.event.status}\t{last.event.version}\t{_json(opened.metadata)}"
        f"\t{timestamp(opened_at_ms)}\t{timestamp(last.time_ms)}\t{hex_of(opened.command_id)}\n"
    )


def _arrays(changes: list[_Change]) -> dict[str, str]:
    return {
        "ids": array(hex_of(change.event.wallet_id) for change in changes),
        "balances": array(str(change.event.balance) for change in changes),
        "statuses": array(change.event.status for change in changes),
        "versions": array(str(change.event.version) for change in changes),
        "times": array(f'"{timestamp(change.time_ms)}"' for change in changes),
    }


def _transaction_row(transaction: Transaction, *, is_refused: bool = False) -> str:
    initiated, failure, completed_at_ms = (
        transaction.initiated,
        transaction.failure,
        transaction.completed_at_ms,
    )
    return (
        f"{timestamp(initiated.time_ms)}\t{initiated.partition}\t{initiated.offset}\t{hex_of(transaction.id)}"
        f"\t{transaction.kind}\t{transaction.status}"
        f"\t{hex_or_null(transaction.from_wallet_id)}\t{hex_or_null(transaction.to_wallet_id)}"
        f"\t{hex_or_null(transaction.from_owner_id)}\t{hex_or_null(transaction.to_owner_id)}\t{hex_or_null(transaction.actor_id)}"
        f"\t{'t' if is_refused else 'f'}\t{transaction.amount}\t{text(transaction.currency)}"
        f"\t{text(transaction.reference)}\t{_json(transaction.metadata)}"
        f"\t{text(failure.code if failure else None)}\t{text(failure.detail if failure else None)}"
        f"\t{NULL if completed_at_ms is None else timestamp(completed_at_ms)}"
        f"\t{transaction.effective_at or NULL}\n"
    )


def _json(metadata: dict[str, str]) -> str:
    return text(_encode_json(metadata).decode()) if metadata else NO_METADATA
