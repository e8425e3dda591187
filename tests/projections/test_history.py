"""Pages: all of a list, once each, in order, whatever the limit and whatever comes meanwhile."""

import asyncio
from base64 import urlsafe_b64encode
from collections.abc import Awaitable, Callable, Iterator
from itertools import count
from random import Random, randrange
from typing import Any
from uuid import UUID, uuid4

import psycopg2
import pytest

from mercuria.domain.commands import Position
from mercuria.domain.transaction import Transaction
from mercuria.domain.wallet import Wallet
from mercuria.postgres.database import Database, DatabaseUnavailable, queries
from mercuria.projections.wallets.queries import History, Page
from mercuria.projections.wallets.store import WalletTables
from tests.projections.logs import Log, bring_in, model_of, random_log
from tests.projections.model import Tables

Read = Callable[..., Awaitable[Page[Any] | None]]


@pytest.fixture
def seed() -> int:
    """Return a seed, and say it: pytest shows what was printed when a test fails."""
    seed = randrange(2**32)
    print(f"seed {seed}")
    return seed


@pytest.fixture
def log(seed: int, writers: list[WalletTables]) -> Log:
    """Return a log that is in the tables."""
    log = random_log(Random(seed), 300)
    bring_in(log, writers[0])
    return log


@pytest.fixture
def there(log: Log) -> Tables:
    """Return what is in the tables."""
    return model_of(log).comparable()


async def all_of(read: Read, limit: int = 7, **filters: Any) -> list[Any]:
    """Read a list page by page."""
    items: list[Any] = []
    cursor = None
    while True:
        page = await read(limit=limit, cursor=cursor, **filters)
        assert page is not None
        items += page.items
        assert len(page.items) == limit or not page.has_more
        if not page.has_more:
            return items
        cursor = page.next_cursor


def newest_first(position: Position) -> tuple[int, int, int]:
    return -position.time_ms, -position.partition, -position.offset


def transactions(there: Tables, matches: Callable[[Transaction], bool]) -> list[Transaction]:
    """Return the transactions that match, the newest first."""
    found = [each for each, _ in there.transactions.values() if matches(each)]
    return sorted(found, key=lambda each: newest_first(each.initiated))


async def test_a_wallet_and_a_transaction_are_found_by_their_ids(history: History, there: Tables) -> None:
    for wallet in there.wallets.values():
        assert await history.wallet(wallet.id) == wallet
    newest: dict[UUID, Transaction] = {}
    for transaction in transactions(there, lambda _: True):
        # Some ids were used again when their receipts had expired.
        newest.setdefault(transaction.id, transaction)
    for transaction in newest.values():
        assert await history.transaction(transaction.id) == transaction
    assert await history.wallet(uuid4()) is None
    assert await history.transaction(uuid4()) is None


@pytest.mark.parametrize("limit", [1, 2, 100])
async def test_a_persons_wallets_are_listed_the_newest_first(
    history: History, there: Tables, limit: int
) -> None:
    for owner_id in {wallet.owner_id for wallet in there.wallets.values()}:
        own = [wallet for wallet in there.wallets.values() if wallet.owner_id == owner_id]
        own.sort(key=lambda wallet: (wallet.created_at_ms, wallet.id), reverse=True)
        read = _with(history.wallets, owner_id)
        assert await all_of(read, limit) == own
        assert await all_of(read, limit, currency="JPY") == [each for each in own if each.currency == "JPY"]
        assert await all_of(read, limit, status="open") == [each for each in own if each.status == "open"]


async def test_what_happened_to_a_wallet_is_listed_the_newest_first(history: History, there: Tables) -> None:
    for wallet in there.wallets.values():
        events = await all_of(_with(history.events, wallet.id))
        assert [event.version for event in events] == list(range(wallet.version, 0, -1))
        assert sum(event.change for event in events) == wallet.balance == events[0].balance
        assert {(each.partition, each.offset) for each in events} == {
            (each.partition, each.offset) for each in there.events if each.wallet_id == wallet.id
        }


@pytest.mark.parametrize("limit", [1, 3, 100])
async def test_all_transactions_are_listed_for_operators(history: History, there: Tables, limit: int) -> None:
    everything = transactions(there, lambda _: True)
    assert await all_of(history.transactions, limit) == everything
    assert await all_of(history.transactions, limit, status="failed") == [
        each for each in everything if each.status == "failed"
    ]
    assert await all_of(history.transactions, limit, kind="transfer") == [
        each for each in everything if each.kind == "transfer"
    ]


async def test_people_see_what_they_took_part_in_or_tried(history: History, there: Tables) -> None:
    clients = {wallet.owner_id for wallet in there.wallets.values()}
    clients |= {each.actor_id for each, _ in there.transactions.values() if each.actor_id}
    for person_id in clients:
        theirs = transactions(there, lambda each, who=person_id: each.is_visible_to(who))  # type: ignore[misc]
        read = _with(history.transactions, person_id=person_id)
        assert await all_of(read) == theirs
        assert await all_of(read, status="failed") == [each for each in theirs if each.status == "failed"]
        assert await all_of(read, kind="deposit") == [each for each in theirs if each.kind == "deposit"]
    assert await all_of(history.transactions, person_id=uuid4()) == []


async def test_people_see_their_transfers_that_are_still_pending(
    history: History, writers: list[WalletTables], seed: int
) -> None:
    # What comes to partition 2 is not projected yet. In a few logs, nobody has sent anything there.
    logs = ([*random_log(Random(seed + index), 300)[:2], []] for index in count())
    log, pending = next((each, found) for each in logs if (found := pending_in(each)))
    bring_in(log, writers[0])
    there = model_of(log).comparable()
    assert await all_of(history.transactions, status="pending") == pending
    for person_id in {wallet.owner_id for wallet in there.wallets.values()}:
        theirs = [each for each in pending if each.from_owner_id == person_id]
        read = _with(history.transactions, person_id=person_id, status="pending")
        assert await all_of(read) == await all_of(read, kind="transfer") == theirs
        assert await all_of(read, kind="deposit") == []


def pending_in(log: Log) -> list[Transaction]:
    """Return the transactions that are pending at the end of a log, the newest first."""
    return transactions(model_of(log).comparable(), lambda each: each.status == "pending")


async def test_transactions_of_a_wallet_come_in_the_order_in_which_they_came_to_it(
    history: History, there: Tables
) -> None:
    for wallet in there.wallets.values():
        theirs = of_wallet(there, wallet)
        assert await all_of(_with(history.transactions, wallet_id=wallet.id)) == theirs
        read = _with(history.transactions, wallet_id=wallet.id, person_id=wallet.owner_id)
        assert await all_of(read) == [each for each in theirs if each.is_visible_to(wallet.owner_id)]


def of_wallet(there: Tables, wallet: Wallet) -> list[Transaction]:
    """Return what happened in a wallet, and what it refused, the newest first."""
    firsts: dict[Position, int] = {}
    for event in sorted(there.events, key=lambda event: event.offset):
        if event.wallet_id == wallet.id and event.initiated is not None:
            firsts.setdefault(event.initiated, event.offset)
    found = [(offset, there.transactions[initiated][0]) for initiated, offset in firsts.items()]
    for each, is_refused in there.transactions.values():
        if is_refused and (each.from_wallet_id or each.to_wallet_id) == wallet.id:
            found.append((each.initiated.offset, each))
    return [each for _, each in sorted(found, key=lambda pair: -pair[0])]


async def test_people_see_what_they_have_to_do_with_a_foreign_wallet(history: History, there: Tables) -> None:
    one, *others = there.wallets.values()
    for person_id in {wallet.owner_id for wallet in others} - {one.owner_id}:
        read = _with(history.transactions, wallet_id=one.id, person_id=person_id)
        expected = transactions(
            there,
            lambda each, who=person_id: (
                each.is_visible_to(who)  # type: ignore[misc]
                and one.id in (each.from_wallet_id, each.to_wallet_id)
            ),
        )
        assert await all_of(read) == expected


async def test_what_comes_meanwhile_moves_nothing(
    history: History, there: Tables, log: Log, writers: list[WalletTables], seed: int
) -> None:
    page = await history.transactions(limit=10)
    assert page is not None
    later = random_log(Random(seed + 1), 100)
    bring_in([old + new for old, new in zip(log, later, strict=True)], writers[0])
    before = transactions(there, lambda _: True)
    rest = await history.transactions(limit=100, cursor=page.next_cursor)
    assert rest is not None
    assert [each for each in rest.items if each.initiated in there.transactions] == before[10:110]


@pytest.mark.parametrize(
    "cursor", ["", "x", "AAAA", "é", "a" * 500, urlsafe_b64encode(b"a" + bytes(20)).decode() + " "]
)
async def test_what_is_no_cursor_is_none(history: History, cursor: str) -> None:
    assert await history.wallets(uuid4(), cursor=cursor) is None
    assert await history.events(uuid4(), cursor=cursor) is None
    assert await history.transactions(cursor=cursor) is None
    assert await history.transactions(person_id=uuid4(), cursor=cursor) is None


async def test_a_cursor_that_names_an_impossible_moment_does_no_harm(history: History) -> None:
    for fill in (b"\x00", b"\x7f", b"\x80", b"\xff"):
        cursor = urlsafe_b64encode(b"a" + fill * 20).decode().rstrip("=")
        page = await history.transactions(cursor=cursor)
        assert page is not None and page.items == []


async def test_the_cursor_of_another_list_is_none(history: History, there: Tables) -> None:
    page = await history.transactions(limit=1)
    assert page is not None and page.next_cursor is not None
    assert await history.transactions(person_id=uuid4(), cursor=page.next_cursor) is None


async def test_ids_are_found_by_their_upper_half(history: History, there: Tables) -> None:
    ids = {each.id for each, _ in there.transactions.values()}
    some = sorted(ids)[:20]
    prefixes = [id_.int >> 64 for id_ in some]
    assert await history.used_before([*prefixes, 5]) == dict(zip(prefixes, some, strict=True))
    openings = {event.command_id for event in there.events if event.version == 1}
    assert set((await history.used_before([id_.int >> 64 for id_ in openings])).values()) == openings
    assert await history.used_before([]) == {}


async def test_waiting_ends_when_the_tables_are_there(
    history: History, writers: list[WalletTables], seed: int
) -> None:
    log = random_log(Random(seed), 40)
    ends = {partition: len(events) for partition, events in enumerate(log)}
    assert not await history.caught_up(ends, 0.05)
    waiting = [asyncio.create_task(history.caught_up(ends, 30)) for _ in range(10)]
    await asyncio.to_thread(bring_in, log, writers[0])
    assert all(await asyncio.gather(*waiting))
    assert await history.caught_up(ends, 0.05)
    assert not await history.caught_up({**ends, 0: ends[0] + 1}, 0.05)


async def test_nobody_waits_for_a_database_that_is_away() -> None:
    database = Database("postgresql://127.0.0.1:1/mercuria")
    with pytest.raises(DatabaseUnavailable):
        await History(database).caught_up({0: 1}, 30)
    await database.close()


@pytest.mark.parametrize(
    ("name", "filters"),
    [
        ("wallets", {}),
        ("events", {}),
        ("transaction", {}),
        ("transactions", {}),
        ("transactions", {"status": "pending"}),
        ("transactions", {"status": "failed"}),
        ("transactions_of_person", {}),
        ("transactions_of_person", {"status": "completed"}),
        ("failed_transactions_of_person", {}),
        ("pending_transactions_of_person", {}),
        ("transactions_of_wallet", {"person_id": None}),
    ],
)
def test_no_page_sorts_or_reads_a_whole_table(url: str, name: str, filters: dict[str, Any]) -> None:
    parameters = {
        **dict.fromkeys(("status", "currency", "kind")),
        **dict.fromkeys(("id", "owner_id", "person_id", "wallet_id", "before_id"), str(UUID(int=5))),
        "before_at": "infinity",
        "before_partition": 1,
        "before_offset": 1,
        "limit": 21,
    }
    if "person" in name:
        parameters["wallet_id"] = None
    connection = psycopg2.connect(url)
    with connection.cursor() as cursor:
        # The planner then takes what it would rather not, only where there is no other way.
        cursor.execute("SET enable_seqscan = off; SET enable_sort = off; SET enable_bitmapscan = off")
        sql = "EXPLAIN (FORMAT JSON) " + queries("mercuria.projections.wallets", "queries.sql")[name]
        cursor.execute(sql, parameters | filters)
        (((plan,),),) = cursor.fetchall()
    connection.close()
    assert list(unbounded(plan["Plan"])) == [], plan


def unbounded(node: dict[str, Any], is_sorted: bool = False) -> Iterator[str]:
    """Yield the scans of whole tables, and those that are sorted with no limit to what is read."""
    kind = node["Node Type"]
    is_sorted = kind == "Sort" or (is_sorted and kind != "Limit")
    if kind == "Seq Scan" or (is_sorted and "Index" in kind):
        yield kind
    for child in node.get("Plans", ()):
        yield from unbounded(child, is_sorted)


def _with(read: Read, *arguments: Any, **filters: Any) -> Read:
    def bound(**more: Any) -> Awaitable[Page[Any] | None]:
        return read(*arguments, **filters, **more)

    return bound
