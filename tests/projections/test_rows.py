"""Rows of events: what becomes of each, and what is left out."""

from uuid import UUID

from mercuria.domain.commands import (
    ClientCommand,
    Credit,
    Decidable,
    Deposit,
    OpenWallet,
    Position,
    Refund,
    Transfer,
    UnfreezeWallet,
    Withdraw,
)
from mercuria.domain.events import CommandRejected, Event
from mercuria.domain.rejections import Code
from mercuria.domain.transfer import react
from mercuria.domain.wallet import Wallet, decide, evolve
from mercuria.projections.checkpoints import Checkpoint
from mercuria.projections.rows import SourceEvent
from mercuria.projections.wallets.rows import NULL, Rows, Texts, timestamp

ALICE, BOB = UUID(int=1), UUID(int=2)
ALICES, ALICES_OTHER, BOBS, NOBODYS = UUID(int=11), UUID(int=12), UUID(int=21), UUID(int=31)
TIME_MS = 1_790_000_000_123


class Bank:
    """Decides commands one after the other; all wallets are in partition 0, but BOBS is in partition 1."""

    def __init__(self) -> None:
        self.emitted: list[tuple[int, SourceEvent]] = []
        self._wallets: dict[UUID, Wallet | None] = {}
        self._offsets = [0, 0]
        self._ids = iter(range(100, 1000))
        for wallet_id, owner_id in ((ALICES, ALICE), (ALICES_OTHER, ALICE), (BOBS, BOB)):
            self.do(OpenWallet(id=self.id(), wallet_id=wallet_id, owner_id=owner_id, currency="EUR"))
        self.do(Deposit(id=self.id(), wallet_id=ALICES, amount=100, currency="EUR"))

    def id(self) -> UUID:
        return UUID(int=next(self._ids))

    def do(self, command: Decidable) -> None:
        """Decide a command, and the legs that come of it."""
        partition = 1 if command.wallet_id == BOBS else 0
        at = Position(partition, self._offsets[partition], TIME_MS)
        self._offsets[partition] += 1
        wallet = self._wallets.get(command.wallet_id)
        event = decide(command, wallet, at)
        self._wallets[command.wallet_id] = evolve(wallet, event, TIME_MS)
        self.emitted.append((partition, SourceEvent(event, TIME_MS, at.offset)))
        leg = react(command, event, at)
        if leg is not None:
            assert isinstance(leg, Credit | Refund)
            self.do(leg)

    def transfer(self, to_wallet_id: UUID, amount: int = 5) -> None:
        self.do(Transfer(id=self.id(), wallet_id=ALICES, to_wallet_id=to_wallet_id, amount=amount))

    def last(self, count: int) -> Texts:
        """Return the rows of the last events."""
        return rows_of(self.emitted[-count:]).payload()


def rows_of(told: list[tuple[int, SourceEvent]]) -> Rows:
    rows = Rows({0: Checkpoint(), 1: Checkpoint()})
    for partition, each in told:
        rows.take(partition, [each])
    return rows


def cells(text: str, *columns: int) -> list[tuple[str, ...]]:
    """Return some columns of all rows."""
    return [tuple(row.split("\t")[column] for column in columns) for row in text.splitlines()]


CHANGE, KIND, STATUS, COUNTERPARTY, IS_LISTED = 8, 12, 13, 14, 18


def test_a_deposit_is_an_event_and_a_completed_transaction() -> None:
    rows = Bank().last(1)
    assert cells(rows.events, CHANGE, KIND, STATUS, IS_LISTED) == [("100", "deposit", "completed", "t")]
    assert cells(rows.transactions, 0, 4, 5) == [(timestamp(TIME_MS), "deposit", "completed")]
    assert rows.changed == 1 and rows.openings == ""


def test_a_wallet_that_is_opened_and_changed_at_once_is_one_row_as_it_is_in_the_end() -> None:
    rows = rows_of(Bank().emitted).payload()
    assert cells(rows.openings, 3, 6) == [("100", "2"), ("0", "1"), ("0", "1")]
    assert rows.changed == 0 and rows.changes["ids"] == "{}"


def test_a_transfer_whose_both_halves_come_together_is_one_completed_transaction() -> None:
    bank = Bank()
    bank.transfer(BOBS)
    rows = bank.last(2)
    assert cells(rows.events, CHANGE, STATUS, COUNTERPARTY, IS_LISTED) == [
        ("-5", "pending", BOBS.hex, "t"),
        ("5", "completed", ALICES.hex, "t"),
    ]
    assert cells(rows.transactions, 5, 8, 9) == [("completed", ALICE.hex, BOB.hex)]


def test_whichever_half_of_a_transfer_is_read_first_its_end_counts() -> None:
    bank = Bank()
    bank.transfer(BOBS)
    debit, credit = bank.emitted[-2:]
    assert rows_of([credit, debit]).payload().transactions == rows_of([debit, credit]).payload().transactions


def test_a_debit_alone_is_a_pending_transaction() -> None:
    bank = Bank()
    bank.transfer(BOBS)
    assert cells(rows_of(bank.emitted[-2:-1]).payload().transactions, 5, 9) == [("pending", NULL)]


def test_a_refund_ends_the_transaction_and_is_not_listed_again() -> None:
    bank = Bank()
    bank.transfer(NOBODYS)
    rows = bank.last(3)
    assert cells(rows.events, CHANGE, STATUS, IS_LISTED) == [("-5", "pending", "t"), ("5", "failed", "f")]
    assert cells(rows.transactions, 5, 16) == [("failed", "wallet_not_found")]


def test_a_transfer_between_wallets_of_one_owner_is_listed_once() -> None:
    bank = Bank()
    bank.transfer(ALICES_OTHER)
    assert cells(bank.last(2).events, IS_LISTED) == [("t",), ("f",)]


def test_a_refused_movement_is_a_failed_transaction_without_events() -> None:
    bank = Bank()
    bank.do(Withdraw(id=bank.id(), wallet_id=ALICES, amount=101, actor_id=ALICE))
    rows = bank.last(1)
    assert rows.events == "" and rows.changed == 0
    assert cells(rows.transactions, 5, 10, 11, 16) == [("failed", ALICE.hex, "t", "insufficient_funds")]


def test_other_refusals_leave_nothing_but_the_place() -> None:
    refused: list[Event | ClientCommand] = [
        CommandRejected(offset=90, code=Code.MALFORMED_JSON, detail=""),
        UnfreezeWallet(id=UUID(int=7), wallet_id=ALICES),
    ]
    for each in refused:
        event = each if isinstance(each, CommandRejected) else decide(each, None, Position(0, 90, TIME_MS))
        rows = rows_of([(0, SourceEvent(event, TIME_MS, 8))])
        assert rows.size == 0 and rows.moved == {0: Checkpoint(8, 90)}


def test_what_is_told_again_is_left_out() -> None:
    bank = Bank()
    again = [(partition, each._replace(offset=each.offset + 100)) for partition, each in bank.emitted]
    once, twice = rows_of(bank.emitted), rows_of(bank.emitted + again)
    assert once.payload() == twice.payload()
    assert twice.checkpoints == {0: Checkpoint(102, 2, emitted=1, sent=1), 1: Checkpoint(100, 0)}
    assert once.outbound == twice.outbound


def test_records_that_were_read_before_are_left_out() -> None:
    bank = Bank()
    rows = Rows({0: Checkpoint(1, 1)})
    rows.take(0, [each for partition, each in bank.emitted if partition == 0])
    assert cells(rows.payload().events, 1) == [("2",)]
    again = Rows(rows.checkpoints)
    again.take(0, [each for partition, each in bank.emitted if partition == 0][:1])
    assert again.moved == {}
