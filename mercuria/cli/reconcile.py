"""`mercuria reconcile`: compares the workers' tables, PostgreSQL, Redis, the ledger and analytics.

Wallets that change meanwhile are compared by version: a wallet's events contain its state at each version.
The tables and the cache are read first. Then the command waits for PostgreSQL to catch up, and reads it in
one snapshot, which therefore has everything that they have. The copies of analytics' counters are compared
when they are at PostgreSQL's position.
"""

import asyncio
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Set
from itertools import islice
from typing import NamedTuple
from uuid import UUID

import click
import msgspec
from msgspec import Struct, field

from mercuria.cli.counted import LOOK_EVERY_S, compare_copies, wrong_counters
from mercuria.cli.data_dir import with_data_dir
from mercuria.cli.failures import EXIT_NO
from mercuria.cli.options import json_option
from mercuria.cli.printable import printable
from mercuria.cli.showing import show_json
from mercuria.config import current_settings
from mercuria.domain.wallet import Wallet
from mercuria.kafka.client import event_reader, read_log
from mercuria.kafka.partitioning import Partitioner
from mercuria.postgres.database import Database
from mercuria.projections.checkpoints import Positions
from mercuria.projections.ledger.snapshot import Books, books
from mercuria.projections.registry import PROJECTIONS
from mercuria.redis.authenticity import Authenticity
from mercuria.redis.cache import Cache
from mercuria.redis.client import connect
from mercuria.tables.balance_rows import read_rows
from mercuria.topics import BALANCES_CHANGELOG

SHOWN = 20
CHUNK = 500
WITHIN_S = 60.0


class State(NamedTuple):
    """The state of a wallet in one store: version, balance and overdraft limit in minor units, and status."""

    version: int
    balance: int
    status: str
    overdraft_limit: int


class Money(Struct):
    """Sums of one currency, in minor units, as texts: they may exceed 64 bits."""

    wallets: str
    ledger: str
    in_flight: str


class Report(Struct):
    """The findings.

    `not_entered_yet` are changes that the ledger does not have yet because it lags. `moving_counters` are
    partitions whose copies of counters could not be compared, because they kept changing.
    """

    wallets: int = 0
    cached: int = 0
    moved_meanwhile: int = 0
    not_entered_yet: int = 0
    moving_counters: int = 0
    money: dict[str, Money] = field(default_factory=dict)
    differences: int = 0
    sentences: list[str] = field(default_factory=list)

    def differ(self, sentence: str) -> None:
        """Add a difference."""
        self.differences += 1
        if len(self.sentences) < SHOWN:
            self.sentences.append(sentence)


class TooSlow(Exception):
    """PostgreSQL does not catch up with the log."""


@click.command()
@with_data_dir
@json_option
def reconcile(as_json: bool) -> None:
    """Compare the workers' tables, PostgreSQL, Redis and the ledger.

    Wallets are compared one by one, and so are the figures of analytics. Workers may run and have work. The exit code
    is 1 where anything differs, and 2 where it cannot be compared.
    """
    report = asyncio.run(_reconcile())
    _show(report, as_json)
    sys.exit(EXIT_NO if report.differences else 0)


async def _reconcile() -> Report:
    settings = current_settings()
    report = Report()
    tables = await _tables()
    distrusted = set[str]()
    authenticity = Authenticity(settings.leg_key, distrusted.add)
    cached = await _cached(tables, authenticity)
    await _catch_up()
    with books(settings.database) as found:
        rows = {
            UUID(id_): State(version, balance, status, limit)
            for id_, version, balance, status, limit in found.all("wallets")
        }
        report.wallets, report.cached = len(rows), len(cached) + len(distrusted)
        for key in sorted(distrusted):
            report.differ(f"Redis has under {key} what no worker of this installation has written there.")
        for where, states in (("the workers' tables", tables), ("Redis", cached)):
            _compare(found, rows, where, states, report)
        _check_books(found, report)
        for sentence in wrong_counters(found):
            report.differ(sentence)
    for id_ in await _not_in_tables(rows.keys() - tables.keys()):
        report.differ(f"Wallet {id_} is in PostgreSQL, and not in the workers' tables.")
    copies = await compare_copies(
        settings.database,
        settings.kafka,
        settings.redis,
        authenticity,
        settings.partitions,
    )
    report.moving_counters = len(copies.moving)
    for sentence in copies.differences:
        report.differ(sentence)
    return report


async def _tables() -> dict[UUID, State]:
    """Return the wallets of the workers' tables, from their changelog."""
    states: dict[UUID, State] = {}
    async for record in read_log(current_settings().kafka, BALANCES_CHANGELOG):
        for row in read_rows([(record.key, record.value)]):
            known = states.get(row.id) if isinstance(row, Wallet) else None
            if isinstance(row, Wallet) and (known is None or known.version <= row.version):
                states[row.id] = State(row.version, row.balance, row.status, row.overdraft_limit)
    return states


async def _not_in_tables(ids: Set[UUID]) -> Set[UUID]:
    """Return the wallets that do not appear in the workers' tables, which lag the log by a moment.

    A missing wallet may have been opened after the tables were read, or by a worker that died at that moment.
    """
    deadline_s = time.monotonic() + WITHIN_S
    while ids and time.monotonic() < deadline_s:
        await asyncio.sleep(LOOK_EVERY_S)
        ids = ids - (await _tables()).keys()
    return ids


async def _cached(ids: Iterable[UUID], authenticity: Authenticity) -> dict[UUID, State]:
    """Return the cached wallets in Redis, as far as they are valid."""
    settings = current_settings()
    partitioner, states = Partitioner(settings.partitions), dict[UUID, State]()
    async with connect(settings.redis) as redis:
        cache = Cache(redis, authenticity)
        for chunk in _chunks(ids):
            found = await asyncio.gather(*(cache.wallet(partitioner.of(id_).partition, id_) for id_ in chunk))
            for each in found:
                if each is not None:
                    wallet = each.wallet
                    states[wallet.id] = State(
                        wallet.version, wallet.balance, wallet.status, wallet.overdraft_limit
                    )
    return states


async def _catch_up() -> None:
    """Wait until PostgreSQL has everything that the log holds now."""
    settings = current_settings()
    database = Database(settings.database)
    deadline_s = time.monotonic() + WITHIN_S
    try:
        for name, flow in PROJECTIONS.items():
            async with event_reader(settings.kafka, flow.reads) as reader:
                found = await reader.end_offsets(reader.assignment())
            ends = {tp.partition: end for tp, end in found.items()}
            if not await Positions(database, name).caught_up(ends, deadline_s - time.monotonic()):
                raise TooSlow(f"PostgreSQL is not where the log is after {WITHIN_S:.0f} s")
    finally:
        await database.close()


def _compare(
    found: Books, rows: Mapping[UUID, State], where: str, states: Mapping[UUID, State], report: Report
) -> None:
    """Compare wallets with PostgreSQL's, or if they have changed meanwhile, with their earlier state."""
    moved = []
    for id_, state in states.items():
        row = rows.get(id_)
        if row is not None and row.version > state.version:
            moved.append(id_)
        elif row != state:
            report.differ(
                f"Wallet {id_} is {_text(state)} in {where}, and {_text(row) if row else 'missing'} in PostgreSQL."
            )
    report.moved_meanwhile = max(report.moved_meanwhile, len(moved))
    for chunk in _chunks(moved):
        asked = {"ids": [str(id_) for id_ in chunk], "versions": [states[id_].version for id_ in chunk]}
        then = {UUID(id_): State(*state) for id_, *state in found.all("wallets_then", **asked)}
        for id_ in chunk:
            if then.get(id_) != states[id_]:
                was = then.get(id_)
                report.differ(
                    f"Wallet {id_} is {_text(states[id_])} in {where}, and was"
                    f" {_text(was) if was else 'unknown'} in PostgreSQL."
                )


def _check_books(found: Books, report: Report) -> None:
    """Compare PostgreSQL's wallets with their events, and the events with the ledger."""
    found.read_whole()
    for id_, balance, version, total, count in found.all("wrong_wallets", limit=SHOWN):
        report.differ(
            f"Wallet {id_} has {balance} at version {version}, and its {count} events add up to {total}."
        )
    for id_, limit, last in found.all("wrong_limits", limit=SHOWN):
        report.differ(f"Wallet {id_} has a limit of {limit}, and it was changed to {last} last.")
    for id_, version, amount, after, change, balance in found.all("wrong_entries", limit=SHOWN):
        said = f"an entry of {amount} with {after} after it"
        was = "no event" if change is None else f"a change of {change} to {balance}"
        report.differ(f"Wallet {id_}, version {version}: the ledger has {said}, and the wallet {was}.")
    behind = sum(max(0, emitted - read) for emitted, read in found.all("lag"))
    missing = found.all("missing_entries", limit=2 * behind + SHOWN)
    if len(missing) <= 2 * behind:
        report.not_entered_yet = len(missing)
    else:
        for id_, version, change in missing:
            report.differ(
                f"Wallet {id_}, version {version}: the ledger has no entry for a change of {change}."
            )
    for currency, wallets, ledger, in_flight in found.all("money"):
        report.money[currency] = Money(wallets, ledger, in_flight)


def _chunks(ids: Iterable[UUID]) -> Iterator[list[UUID]]:
    rest = iter(ids)
    while chunk := list(islice(rest, CHUNK)):
        yield chunk


def _text(state: State) -> str:
    limit = f" and a limit of {state.overdraft_limit}" if state.overdraft_limit else ""
    return f"{state.status} with {state.balance}{limit} at version {state.version}"


def _show(report: Report, as_json: bool) -> None:
    if as_json:
        show_json(msgspec.to_builtins(report))
        return
    for currency, money in report.money.items():
        click.echo(
            f"{printable(currency)}: {money.wallets} in wallets, {money.ledger} by the ledger,"
            f" {money.in_flight} in flight."
        )
    for sentence in report.sentences:
        click.echo(printable(sentence))
    if report.differences > len(report.sentences):
        click.echo(f"… and {report.differences - len(report.sentences):,} more.")
    where = f"{report.cached:,} of them in Redis, {report.moved_meanwhile:,} moved meanwhile"
    what = f"{report.wallets:,} wallets ({where})"
    click.echo(f"{what}: {report.differences:,} differences." if report.differences else f"{what} agree.")
