"""`mercuria wallet show` and `list`: wallets from the workers' tables, whether the workers run or not.

The tables' databases are opened as RocksDB secondaries, which take no lock and write nothing into the
workers' directories. A partition that has moved between workers has left copies behind; the most advanced
copy counts.
"""

import heapq
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, cast
from uuid import UUID

import click
import rocksdict
from rich.table import Table

from mercuria.cli.data_dir import data_dir_option, with_data_dir
from mercuria.cli.failures import AnswerIsNo
from mercuria.cli.options import MOST, examples, json_option
from mercuria.cli.printable import printable
from mercuria.cli.showing import show_facts, show_json, show_table
from mercuria.config import current_settings
from mercuria.domain.money import format_amount
from mercuria.domain.wallet import Wallet
from mercuria.kafka.partitioning import Partitioner
from mercuria.tables.balance_rows import OFFSET_KEY, POSITION_KEY, AppliedPosition, read_rows
from mercuria.timestamps import rfc3339

OPEN_ATTEMPTS = 5
OPEN_PAUSE_S = 0.2

_NUMBER = re.compile("[0-9]+")


class TablesError(Exception):
    """The tables cannot be read; the message says why."""


@click.group()
@data_dir_option
def wallet() -> None:
    """Show and list wallets, and change their overdraft limits."""


@wallet.command(epilog=examples("mercuria wallet show 5a7d1c52-0f6b-4c5e-9d39-2f1f6e0c8a11"))
@click.argument("wallet_id", metavar="ID", type=click.UUID)
@with_data_dir
@json_option
def show(wallet_id: UUID, as_json: bool) -> None:
    """Show the wallet ID.

    The workers' tables are read, whether workers run or not. The exit code is 1 when there is no such wallet.
    """
    settings = current_settings()
    found = find(settings.data_dir, wallet_id, settings.partitions)
    if found is None:
        raise AnswerIsNo(f"there is no wallet {wallet_id}")
    if as_json:
        show_json(as_dict(found))
        return
    show_facts(list(_in_words(found)))


@wallet.command(
    "list", epilog=examples("mercuria wallet list --currency CZK --limit 10", "mercuria wallet list --json")
)
@with_data_dir
@click.option("--owner", "owner_id", metavar="ID", type=click.UUID, help="Only this owner's.")
@click.option("--currency", help="Only those in this currency, such as CZK.")
@click.option(
    "--limit", type=click.IntRange(1, MOST), default=50, show_default=True, help="How many at most."
)
@json_option
def list_(owner_id: UUID | None, currency: str | None, limit: int, as_json: bool) -> None:
    """List wallets, the oldest first."""
    wanted = Selection(owner_id, currency.upper() if currency else None)
    total, wallets = first(filter(wanted.has, read(current_settings().data_dir)), limit)
    if as_json:
        show_json([as_dict(each) for each in wallets])
        return
    if not wallets:
        click.echo("There are no wallets." if wanted == Selection() else "There are no such wallets.")
        return
    show_table(_table(wallets))
    if total > len(wallets):
        click.echo(f"{len(wallets):,} of {total:,} wallets; --limit shows more.")


class Selection(NamedTuple):
    """The criteria for wallets; None means any."""

    owner_id: UUID | None = None
    currency: str | None = None

    def has(self, each: Wallet) -> bool:
        """Return whether a wallet meets the criteria."""
        return self.owner_id in (None, each.owner_id) and self.currency in (None, each.currency)


def first(wallets: Iterator[Wallet], limit: int) -> tuple[int, list[Wallet]]:
    """Return the number of wallets, and the `limit` oldest of them; no more are in memory at a time."""
    total = 0

    def counted() -> Iterator[Wallet]:
        nonlocal total
        for each in wallets:
            total += 1
            yield each

    oldest = heapq.nsmallest(limit, counted(), key=lambda each: (each.created_at_ms, each.id))
    return total, oldest


# Reading the tables.


def find(data_dir: Path, wallet_id: UUID, partitions: int) -> Wallet | None:
    """Return a wallet, or None if there is no such wallet.

    Raises:
        TablesError: there are no tables, or they cannot be opened.
    """
    partition = Partitioner(partitions).of(wallet_id).partition
    with _newest(_copies(data_dir, partition)) as database:
        value = database.get(wallet_id.bytes)
        rows = read_rows([(wallet_id.bytes, value)]) if value is not None else iter(())
        return next((row for row in rows if isinstance(row, Wallet)), None)


def read(data_dir: Path) -> Iterator[Wallet]:
    """Return all wallets.

    Raises:
        TablesError: there are no tables, or they cannot be opened.
    """
    for partition in sorted({int(_NUMBER.findall(path.name)[0]) for path in _copies(data_dir, "*")}):
        with _newest(_copies(data_dir, partition)) as database:
            items = cast(Iterator[tuple[bytes, bytes]], database.items())
            # Faust's own offset is among the rows, under a key that is as long as a wallet's.
            rows = (item for item in items if item[0] != OFFSET_KEY)
            yield from (row for row in read_rows(rows) if isinstance(row, Wallet))


def _copies(data_dir: Path, partition: int | str) -> list[Path]:
    """Return the directories of a partition's databases; `*` stands for all partitions."""
    paths = [path.parent for path in data_dir.glob(f"*/v1/tables/balances-{partition}.db/CURRENT")]
    if not paths:
        raise TablesError(
            f"there are no tables in {data_dir}: either no worker has run there yet,"
            " or the workers keep them on other machines."
        )
    return paths


@contextmanager
def _newest(paths: list[Path]) -> Iterator[rocksdict.Rdict]:
    """Open the copy of a partition in which the most commands are decided."""
    with ExitStack() as opened:
        copies = [opened.enter_context(_open(path)) for path in paths]
        yield max(copies, key=_offset)


def _offset(database: rocksdict.Rdict) -> int:
    value = database.get(POSITION_KEY)
    positions = read_rows([(POSITION_KEY, value)]) if value is not None else iter(())
    return max((row.offset for row in positions if isinstance(row, AppliedPosition)), default=-1)


@contextmanager
def _open(path: Path) -> Iterator[rocksdict.Rdict]:
    with TemporaryDirectory(prefix="mercuria-") as scratch:
        database = _open_secondary(path, scratch)
        try:
            yield database
        finally:
            database.close()


def _open_secondary(path: Path, scratch: str) -> rocksdict.Rdict:
    """Open a database while a worker may be writing to it.

    Raises:
        TablesError: the database could not be opened, despite several attempts.
    """
    options = rocksdict.Options(raw_mode=True)
    # All files are opened at once, so that none of them can vanish later.
    options.set_max_open_files(-1)
    access = rocksdict.AccessType.secondary(scratch)
    for attempt in range(1, OPEN_ATTEMPTS + 1):
        try:
            return rocksdict.Rdict(str(path), options=options, access_type=access)
        # RocksDB's errors have no specific type. A file may vanish between listing and opening.
        except Exception as error:
            if attempt == OPEN_ATTEMPTS:
                raise TablesError(f"{path} cannot be opened: {error}") from None
            time.sleep(OPEN_PAUSE_S)
    raise AssertionError("the last attempt returns or raises")


# Showing.


def as_dict(each: Wallet) -> dict[str, Any]:
    """Return a wallet with the field names of the HTTP API; amounts are in minor units."""
    return {
        "id": str(each.id),
        "owner_id": str(each.owner_id),
        "currency": each.currency,
        "balance": each.balance,
        "overdraft_limit": each.overdraft_limit,
        "status": each.status,
        "version": each.version,
        "metadata": each.metadata,
        "created_at": rfc3339(each.created_at_ms),
        "updated_at": rfc3339(each.updated_at_ms),
        "sent": each.sent,
    }


def _in_words(each: Wallet) -> Iterator[tuple[str, str]]:
    yield "Wallet", str(each.id)
    yield "Owner", str(each.owner_id)
    yield "Status", printable(each.status)
    yield "Balance", _amount(each.balance, each)
    yield "Overdraft limit", _amount(each.overdraft_limit, each)
    yield "Sent in transfers", _amount(each.sent, each)
    yield "Version", str(each.version)
    yield "Opened", rfc3339(each.created_at_ms)
    yield "Last changed", rfc3339(each.updated_at_ms)
    for name, text in each.metadata.items():
        yield f"Metadata: {printable(name)}", printable(str(text))


def _amount(minor: int, each: Wallet) -> str:
    return f"{format_amount(minor, each.currency)} {printable(each.currency)}"


def _table(wallets: list[Wallet]) -> Table:
    table = Table()
    table.add_column("wallet", no_wrap=True)
    table.add_column("balance", justify="right", no_wrap=True)
    table.add_column("status", no_wrap=True)
    table.add_column("owner", overflow="fold")
    for each in wallets:
        table.add_row(str(each.id), _amount(each.balance, each), printable(each.status), str(each.owner_id))
    return table
