"""A database of before there were limits to change and effective dates goes on, and what was in it stays as it is."""

from collections.abc import Iterator
from contextlib import closing
from datetime import date
from secrets import token_hex
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID

import psycopg2
import pytest

from mercuria.cli.ledger.chain import Chain, Findings, Row
from mercuria.domain.commands import ClientCommand, Deposit, OpenWallet, Position, SetLimits, Withdraw
from mercuria.domain.events import BalanceUpdated, Event
from mercuria.domain.ledger import NO_HASH, Entry, entries_of
from mercuria.domain.transaction import TransactionCompleted, ended
from mercuria.domain.wallet import Wallet, decide, evolve
from mercuria.embedded.postgres import APPLICATION, OWNER, Postgres
from mercuria.postgres.database import Database
from mercuria.postgres.migrate import migrate
from mercuria.projections.analytics.queries import Analytics
from mercuria.projections.analytics.rows import AnalyticsRows
from mercuria.projections.analytics.store import AnalyticsTables
from mercuria.projections.ledger.queries import Ledger
from mercuria.projections.ledger.snapshot import books
from mercuria.projections.ledger.store import LedgerTables
from mercuria.projections.rows import SourceEvent
from mercuria.projections.wallets.queries import History
from mercuria.projections.wallets.rows import Rows, timestamp
from mercuria.projections.wallets.store import WalletTables

BEFORE = "0004_analytics"
WALLET, PERSON = UUID(int=1), UUID(int=2)
TIME_MS = 1_790_000_000_123
DAY = date(2026, 9, 21)

# As the version before wrote them.
OLD_ROWS = (
    "INSERT INTO wallets VALUES (%(wallet)s, %(owner)s, 'EUR', 40, 50, 'open', 2, '{}', %(at)s, %(at)s, %(one)s)",
    "INSERT INTO wallet_events VALUES (%(wallet)s, 0, 0, 'wallet.created', 1, %(at)s, %(owner)s, %(one)s, 0, 0,"
    " 'open', NULL, NULL, NULL, NULL, NULL, NULL, NULL, false)",
    "INSERT INTO wallet_events VALUES (%(wallet)s, 1, 0, 'wallet.balance_updated', 2, %(at)s, %(owner)s, %(two)s, 40,"
    " 40, 'open', NULL, 'deposit', 'completed', NULL, %(at)s, 0, 1, true)",
    "INSERT INTO transactions VALUES (%(at)s, 0, 1, %(two)s, 'deposit', 'completed', NULL, %(wallet)s, NULL, %(owner)s,"
    " NULL, false, 40, 'EUR', NULL, '{}', NULL, NULL, %(at)s)",
    "INSERT INTO ledger_entries VALUES"
    " (0, 1, %(two)s, 'deposit', 'debit', NULL, 'external:deposits', 40, 'EUR', NULL, NULL, %(at)s, %(debit)s),"
    " (0, 2, %(two)s, 'deposit', 'credit', %(wallet)s, NULL, 40, 'EUR', 40, 2, %(at)s, %(credit)s)",
    "INSERT INTO daily_totals VALUES (%(day)s, 'EUR', 'deposit', 0, 1, 40)",
    "INSERT INTO daily_active_wallets VALUES (%(day)s, 'EUR', %(wallet)s, 0)",
    "INSERT INTO user_totals VALUES (%(owner)s, 'EUR', 'deposit', 'credit', 0, 1, 40, %(at)s)",
    "INSERT INTO positions (stage, partition, read_offset, command_offset, sequence, told, sent) VALUES"
    " ('transactions', 0, 1, 1, 0, 1, 1), ('ledger', 0, 0, -1, 1, 2, 2), ('analytics', 0, 1, -1, 2, 0, 0)",
)
"""Rows of a wallet that was opened with a limit, and of a deposit, as the version before wrote them."""


def happened(*commands: ClientCommand) -> list[Event]:
    """Return the events of commands to one wallet."""
    wallet: Wallet | None = None
    events = []
    for offset, command in enumerate(commands):
        event = decide(command, wallet, Position(0, offset, TIME_MS))
        wallet = evolve(wallet, event, TIME_MS)
        events.append(event)
    return events


def entered(events: list[Event]) -> list[tuple[TransactionCompleted, tuple[Entry, Entry]]]:
    """Return what of events goes into the ledger, with its entries."""
    found, sequence, head = list[tuple[TransactionCompleted, tuple[Entry, Entry]]](), 0, NO_HASH
    for event in events:
        end = ended(event, len(found) + 1) if isinstance(event, BalanceUpdated) else None
        if isinstance(end, TransactionCompleted):
            pair = entries_of(end, 0, TIME_MS, sequence=sequence, previous=head)
            found.append((end, pair))
            sequence, head = sequence + 2, bytes.fromhex(pair[1].hash)
    return found


EVENTS = happened(
    OpenWallet(id=UUID(int=11), wallet_id=WALLET, owner_id=PERSON, currency="EUR", overdraft_limit=50),
    Deposit(id=UUID(int=12), wallet_id=WALLET, amount=40),
    Withdraw(id=UUID(int=13), wallet_id=WALLET, amount=85),
    SetLimits(id=UUID(int=14), wallet_id=WALLET, overdraft_limit=10),
    Deposit(id=UUID(int=15), wallet_id=WALLET, amount=5, effective_at="2021-03-04T00:00:00.000Z"),
    SetLimits(id=UUID(int=16), wallet_id=WALLET, overdraft_limit=100),
)
OLD_EVENTS, OLD_TRANSACTIONS = 2, 1


@pytest.fixture
def upgraded(postgres: Postgres) -> Iterator[str]:
    """Return a database that the version before has filled, with the schema of this one."""
    name = f"old_{token_hex(4)}"
    server = closing(psycopg2.connect(postgres.owner_url))
    with server as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute(f"CREATE DATABASE {name}")
        own = urlunsplit(urlsplit(postgres.owner_url)._replace(path=f"/{name}"))
        migrate(own, last=BEFORE)
        (_, (debit, credit)), *_ = entered(EVENTS)
        values = {
            "wallet": str(WALLET),
            "owner": str(PERSON),
            "one": str(UUID(int=11)),
            "two": str(UUID(int=12)),
            "at": timestamp(TIME_MS),
            "day": DAY,
            "debit": bytes.fromhex(debit.hash),
            "credit": bytes.fromhex(credit.hash),
        }
        with closing(psycopg2.connect(own)) as database, database, database.cursor() as rows:
            for statement in OLD_ROWS:
                rows.execute(statement, values)
        assert migrate(own)[0] == "0005_limits_and_effective_dates"
        yield own.replace(f"//{OWNER}@", f"//{APPLICATION}@", 1)
        cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")


def go_on(url: str) -> None:
    """Let all stages take what has happened since."""
    with closing(WalletTables(url)) as projections:
        rows = Rows(projections.begin([0]))
        rows.take(0, [SourceEvent(event, TIME_MS, event.offset) for event in EVENTS])
        assert len(rows.outbound[0]) == len(entered(EVENTS)) - OLD_TRANSACTIONS
        projections.write(rows.payload(), rows.moved)
    with closing(LedgerTables(url)) as ledger:
        entries = ledger.rows(ledger.begin([0]))
        entries.take(0, [SourceEvent(end, TIME_MS, end.sequence - 1) for end, _ in entered(EVENTS)])
        ledger.write(entries.payload(), entries.moved)
    with closing(AnalyticsTables(url)) as analytics:
        figures = AnalyticsRows(analytics.begin([0]))
        pairs = [entry for _, pair in entered(EVENTS) for entry in pair]
        figures.take(0, [SourceEvent(entry, TIME_MS, offset) for offset, entry in enumerate(pairs)])
        analytics.write(figures.payload(), figures.moved)


async def test_what_was_there_stays_and_what_comes_follows(upgraded: str) -> None:
    database = Database(upgraded)
    try:
        history, ledger, analytics = History(database), Ledger(database), Analytics(database)
        before = await history.wallet(WALLET)
        assert before is not None and (before.balance, before.overdraft_limit) == (40, 50)
        assert (await ledger.state(WALLET, 2)).overdraft_limit is None
        old_days = await analytics.daily_effective(DAY, DAY, None)
        assert old_days == await analytics.daily(DAY, date.max, None) and old_days[0].deposits.volume == 40
        go_on(upgraded)
        after = await history.wallet(WALLET)
        # Below its limit for a while, which no constraint forbids any more.
        assert after is not None and (after.balance, after.overdraft_limit) == (-40, 100)
        states = [await ledger.state(WALLET, place) for place in range(1, 7)]
        assert [state.overdraft_limit for state in states] == [50, 50, 50, 10, 10, 100]
        page = await history.events(WALLET)
        assert page is not None
        assert [each.overdraft_limit for each in page.items] == [100, None, 10, None, None, None]
        transactions = await history.transactions()
        assert transactions is not None
        assert [each.effective_at for each in transactions.items] == ["2021-03-04T00:00:00.000Z", None, None]
        (counted,) = await analytics.daily(DAY, date.max, None)
        (moved, stayed) = await analytics.daily_effective(date.min, date.max, None)
        assert (counted.deposits, counted.active_wallets) == ((2, 45), 1)
        assert (str(moved.day), moved.deposits, moved.active_wallets) == ("2021-03-04", (1, 5), 1)
        assert (stayed.day, stayed.deposits, stayed.active_wallets) == (DAY, (1, 40), 1)
    finally:
        await database.close()
    with books(upgraded) as found:
        chain = Chain(0, Findings())
        for piece in found.pieces("chain", {"partition": 0, "after": 0}):
            chain.take([Row._make((*row[:-1], bytes(row[-1]))) for row in piece], {})
        assert (chain.sequence, chain.findings.sentences) == (6, [])
        assert chain.head.hex() == entered(EVENTS)[-1][1][1].hash
        for name in ("wrong_wallets", "wrong_limits", "wrong_entries", "wrong_days", "wrong_users"):
            assert found.all(name, limit=5) == [], name
        then = found.all("wallets_then", ids=[str(WALLET)] * 6, versions=list(range(1, 7)))
        assert sorted(row[1:] for row in then) == [
            (1, 0, "open", 50),
            (2, 40, "open", 50),
            (3, -45, "open", 50),
            (4, -45, "open", 10),
            (5, -40, "open", 10),
            (6, -40, "open", 100),
        ]


def test_a_changed_effective_date_is_found(upgraded: str) -> None:
    go_on(upgraded)
    owned = upgraded.replace(f"//{APPLICATION}@", f"//{OWNER}@", 1)
    with closing(psycopg2.connect(owned)) as connection, connection, connection.cursor() as cursor:
        cursor.execute("ALTER TABLE ledger_entries DISABLE TRIGGER ledger_entries_are_final")
        cursor.execute("UPDATE ledger_entries SET effective_at = '2021-03-05Z' WHERE sequence = 6")
        cursor.execute("ALTER TABLE ledger_entries ENABLE ALWAYS TRIGGER ledger_entries_are_final")
    with books(upgraded) as found:
        chain = Chain(0, Findings())
        for piece in found.pieces("chain", {"partition": 0, "after": 0}):
            chain.take([Row._make((*row[:-1], bytes(row[-1]))) for row in piece], {})
    assert len(chain.findings.sentences) == 2
    assert "Entry 0-6" in chain.findings.sentences[0] and "hash" in chain.findings.sentences[0]
    assert "does not balance" in chain.findings.sentences[1]
