"""Reading the ledger and the past: all entries once each, in order, and wallets as they were at any moment."""

import io
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from random import Random
from typing import Any
from uuid import UUID, uuid4

import psycopg2
import pytest
from msgspec import UNSET

from mercuria.domain.commands import Position, WalletSide
from mercuria.domain.events import WalletCreated
from mercuria.domain.ledger import NO_HASH, Entry, entries_of
from mercuria.domain.transaction import TransactionCompleted
from mercuria.kafka.cloudevents import read_wallet_event
from mercuria.postgres.database import Database, queries
from mercuria.postgres.paging import Page
from mercuria.projections.ledger.queries import Ledger
from mercuria.projections.ledger.rows import entry_row
from mercuria.projections.wallets.queries import History
from mercuria.projections.wallets.rows import timestamp
from mercuria.projections.wallets.store import WalletTables
from tests.projections.logs import MOMENTS, bring_in, model_of, random_log
from tests.projections.test_history import all_of, unbounded

PEOPLE = (UUID(int=1), UUID(int=2), UUID(int=3))
CURRENCIES = ("EUR", "EUR", "JPY")

Placed = tuple[int, Entry]
"""An entry, behind its partition."""


@pytest.fixture
async def ledger(url: str) -> AsyncIterator[Ledger]:
    """Return the tables to read."""
    database = Database(url)
    yield Ledger(database)
    await database.close()


class Books:
    """Some entries of random transactions, the newest first, in partitions and in a time of their own.

    What is in the ledger stays in it.
    """

    def __init__(self, random: Random, url: str) -> None:
        self._random = random
        self._url = url
        self.since_ms = self.until_ms = random.randrange(10**9, 10**12)
        self.owners = {UUID(int=random.getrandbits(128)): random.choice(PEOPLE) for _ in range(12)}
        self.currencies = {wallet_id: random.choice(CURRENCIES) for wallet_id in self.owners}
        self._heads = dict.fromkeys(random.sample(range(1_000, 10**9), 3), (0, NO_HASH))
        self.entries: list[Placed] = []
        self._open_wallets()

    def add(self, count: int) -> None:
        """Add entries of some transactions, of which many come in one millisecond."""
        added = [each for _ in range(count) for each in self._transaction()]
        rows = io.StringIO("".join(entry_row(partition, entry) for partition, entry in added))
        with closing(psycopg2.connect(self._url)) as connection, connection, connection.cursor() as cursor:
            cursor.copy_expert(queries("mercuria.projections.ledger", "store.sql")["copy_entries"], rows)
        self.entries = sorted(
            self.entries + added,
            key=lambda each: (each[1].occurred_at_ms, each[0], each[1].sequence),
            reverse=True,
        )

    def ids(self, matches: Callable[[Entry], Any] = bool) -> list[UUID]:
        """Return the ids of the entries that match."""
        return [entry.id for _, entry in self.entries if matches(entry)]

    def _open_wallets(self) -> None:
        with closing(psycopg2.connect(self._url)) as connection, connection, connection.cursor() as cursor:
            for wallet_id, owner_id in self.owners.items():
                cursor.execute(
                    "INSERT INTO wallets VALUES (%s, %s, %s, 0, 0, 'open', 1, '{}', %s, %s, %s)",
                    [
                        wallet_id.hex,
                        owner_id.hex,
                        self.currencies[wallet_id],
                        *[timestamp(self.since_ms)] * 2,
                        uuid4().hex,
                    ],
                )

    def _transaction(self) -> tuple[Placed, Placed]:
        random = self._random
        self.until_ms += random.choice([0, 0, 1])
        partition = random.choice(list(self._heads))
        wallet_id = random.choice(list(self.owners))
        currency = self.currencies[wallet_id]
        other_id = random.choice([each for each in self.owners if self.currencies[each] == currency])
        side, other = (
            WalletSide(each, self.owners[each], random.randrange(100), random.randrange(100))
            for each in (wallet_id, other_id)
        )
        kind = random.choice(["deposit", "withdrawal", "transfer", "transfer"])
        event = TransactionCompleted(
            sequence=1,
            offset=1,
            transaction_id=UUID(int=random.getrandbits(128)),
            initiated=Position(0, 0, self.until_ms),
            kind=kind,
            amount=random.randrange(1, 100),
            currency=currency,
            from_wallet=None if kind == "deposit" else side,
            to_wallet={"deposit": side, "transfer": other}.get(kind),
            reference=None,
            metadata={},
            effective_at=random.choice([UNSET, UNSET, UNSET, *MOMENTS]),
        )
        sequence, head = self._heads[partition]
        pair = entries_of(event, partition, self.until_ms, sequence=sequence, previous=head)
        self._heads[partition] = sequence + 2, bytes.fromhex(pair[1].hash)
        return (partition, pair[0]), (partition, pair[1])


@pytest.fixture
def books(random: Random, url: str) -> Books:
    """Return entries that are in the ledger."""
    books = Books(random, url)
    books.add(80)
    return books


async def ids_of(ledger: Ledger, books: Books, limit: int = 7, **filters: Any) -> list[UUID]:
    """Read a list page by page."""
    filters = {"since_ms": books.since_ms, "until_ms": books.until_ms + 1} | filters

    async def read(**more: Any) -> Page[Any] | None:
        return await ledger.entries(**filters, **more)

    return [each.id for each in await all_of(read, limit)]


@pytest.mark.parametrize("limit", [1, 3, 100])
async def test_operators_read_all_entries(ledger: Ledger, books: Books, limit: int) -> None:
    assert await ids_of(ledger, books, limit) == books.ids()
    for currency in ("EUR", "JPY", "USD"):
        expected = books.ids(lambda entry, like=currency: entry.currency == like)  # type: ignore[misc]
        assert await ids_of(ledger, books, limit, currency=currency) == expected


@pytest.mark.parametrize("limit", [1, 3, 100])
async def test_people_read_the_entries_of_their_wallets(ledger: Ledger, books: Books, limit: int) -> None:
    for person_id in (*PEOPLE, uuid4()):
        own = {str(each) for each, owner_id in books.owners.items() if owner_id == person_id}
        expected = books.ids(lambda entry, own=own: entry.account in own)  # type: ignore[misc]
        assert await ids_of(ledger, books, limit, owner_id=person_id) == expected
        euros = books.ids(lambda entry, own=own: entry.account in own and entry.currency == "EUR")  # type: ignore[misc]
        assert await ids_of(ledger, books, limit, owner_id=person_id, currency="EUR") == euros
    for wallet_id in books.owners:
        of_wallet = books.ids(lambda entry, account=str(wallet_id): entry.account == account)  # type: ignore[misc]
        assert await ids_of(ledger, books, limit, wallet_id=wallet_id) == of_wallet


async def test_a_period_has_its_beginning_and_not_its_end(
    ledger: Ledger, books: Books, random: Random
) -> None:
    for _ in range(10):
        since_ms, until_ms = sorted(random.randint(books.since_ms, books.until_ms) for _ in range(2))
        expected = books.ids(lambda entry, a=since_ms, b=until_ms: a <= entry.occurred_at_ms < b)  # type: ignore[misc]
        assert await ids_of(ledger, books, since_ms=since_ms, until_ms=until_ms) == expected


async def test_a_period_ends_where_it_says_also_for_a_cursor_of_a_longer_one(
    ledger: Ledger, books: Books
) -> None:
    for count in range(1, 20):
        longer = await ledger.entries(limit=count, since_ms=books.since_ms, until_ms=books.until_ms + 1)
        assert longer is not None
        until_ms = longer.items[-1].occurred_at_ms
        page = await ledger.entries(
            limit=200, since_ms=books.since_ms, until_ms=until_ms, cursor=longer.next_cursor
        )
        assert page is not None
        expected = books.ids(lambda entry, end=until_ms: entry.occurred_at_ms < end)  # type: ignore[misc]
        assert [each.id for each in page.items] == expected


async def test_what_is_entered_meanwhile_moves_nothing(ledger: Ledger, books: Books) -> None:
    period = {"since_ms": books.since_ms, "until_ms": books.until_ms + 10**6}
    before = [each for each in books.entries if each[1].occurred_at_ms < books.until_ms]
    page = await ledger.entries(limit=10, since_ms=books.since_ms, until_ms=books.until_ms)
    assert page is not None
    books.add(40)
    rest = await ledger.entries(limit=100, cursor=page.next_cursor, **period)
    assert rest is not None
    assert [each.id for each in (*page.items, *rest.items)] == [entry.id for _, entry in before[:110]]


async def test_both_entries_of_a_transaction_are_found_and_are_as_they_were_entered(
    ledger: Ledger, books: Books
) -> None:
    pairs: dict[UUID, list[Entry]] = {}
    for _, entry in reversed(books.entries):
        pairs.setdefault(entry.transaction_id, []).append(entry)
    for transaction_id, pair in pairs.items():
        found = await ledger.entries_of_transaction(transaction_id, pair[0].occurred_at_ms)
        for entry, read in zip(pair, found, strict=True):
            for name in ("id", "kind", "account", "direction", "amount", "currency", "hash"):
                assert getattr(read, name) == getattr(entry, name), name
            assert (read.balance_after, read.wallet_version) == (entry.balance_after, entry.wallet_version)
            assert read.effective_at == (entry.effective_at or None)
        assert await ledger.entries_of_transaction(uuid4(), pair[0].occurred_at_ms) == []


@pytest.mark.parametrize("cursor", ["", "x", "AAAA", "é", "a" * 500])
async def test_what_is_no_cursor_is_none(ledger: Ledger, cursor: str) -> None:
    assert await ledger.entries(cursor=cursor) is None


async def test_the_cursor_of_another_list_is_none(ledger: Ledger, history: History, books: Books) -> None:
    page = await ledger.entries(limit=1)
    assert page is not None and page.next_cursor is not None
    assert await history.transactions(cursor=page.next_cursor) is None


# The past.


async def test_a_wallet_is_as_its_last_event_left_it(
    ledger: Ledger, writers: list[WalletTables], random: Random
) -> None:
    log = random_log(random, 300)
    bring_in(log, writers[0])
    there = model_of(log).comparable()
    opened = (
        event for events in log for event, _ in map(read_wallet_event, events) if type(event) is WalletCreated
    )
    opening_limits = {event.wallet_id: event.overdraft_limit for event in opened}
    for wallet in there.wallets.values():
        events = sorted(
            (each for each in there.events if each.wallet_id == wallet.id), key=lambda each: each.offset
        )
        opening_limit = opening_limits[wallet.id]
        moments = {each.time_ms + delta for each in events for delta in (-1, 0, 1)} | {0, 10**13}
        for at_ms in moments:
            before = [each for each in events if each.time_ms < at_ms]
            place = await ledger.place(wallet.id, at_ms)
            state = await ledger.state(wallet.id, place)
            last = before[-1] if before else None
            assert state.version == (last.version if last else 0)
            assert (state.balance, state.status) == ((last.balance, last.status) if last else (0, None))
            limits = [opening_limit, *(each.limit for each in before if each.limit is not None)]
            assert not last or limits[-1] in (state.overdraft_limit, wallet.overdraft_limit)
            assert not last or state.overdraft_limit in (limits[-1], None)
            assert await ledger.has_event_since(wallet.id, at_ms) == (len(before) < len(events))
            lines = await ledger.lines(wallet.id, 0, place, 1000)
            assert [each.offset for each in lines] == [each.offset for each in before if each.change]
            assert sum(each.change for each in lines) == state.balance
        noted = {each.id: (each.reference, each.effective_at) for each, _ in there.transactions.values()}
        for line in await ledger.lines(wallet.id, 0, 2**62, 1000):
            assert (line.reference, line.effective_at) == noted[line.transaction_id]
    assert await ledger.place(uuid4(), 10**12) == 0


# Plans.


@pytest.mark.parametrize(
    "name",
    [
        "entries",
        "entries_of_currency",
        "entries_of_wallet",
        "entries_of_transaction",
        "event_before",
        "lines",
    ],
)
def test_no_page_sorts_or_reads_a_whole_table(url: str, name: str) -> None:
    parameters = {
        **dict.fromkeys(("wallet_id", "transaction_id"), str(UUID(int=5))),
        "currency": "EUR",
        **dict.fromkeys(("before_at", "since", "completed_at"), timestamp(10**12)),
        **dict.fromkeys(("before_partition", "before_sequence", "place", "start", "end"), 1),
        "limit": 21,
    }
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute("SET enable_seqscan = off; SET enable_sort = off; SET enable_bitmapscan = off")
        cursor.execute(
            "EXPLAIN (FORMAT JSON) " + queries("mercuria.projections.ledger", "queries.sql")[name], parameters
        )
        (((plan,),),) = cursor.fetchall()
    assert list(unbounded(plan["Plan"])) == [], plan
