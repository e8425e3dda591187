"""`mercuria ledger export`: writes the ledger, for beancount or a spreadsheet."""

import csv
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, TextIO

import click

from mercuria.cli.data_dir import with_data_dir
from mercuria.cli.ledger import ledger
from mercuria.cli.options import examples
from mercuria.cli.output import output_file, output_option
from mercuria.config import current_settings
from mercuria.domain.money import MINOR_DIGITS
from mercuria.projections.ledger.snapshot import Books, books
from mercuria.timestamps import rfc3339_of

COLUMNS = (
    "partition",
    "sequence",
    "transaction_id",
    "kind",
    "account",
    "direction",
    "amount",
    "currency",
    "balance_after",
    "wallet_version",
    "occurred_at",
    "hash",
    "effective_at",
)


@ledger.command(
    "export",
    epilog=examples(
        "mercuria ledger export --output books.beancount",
        "mercuria ledger export --format csv --from 2026-11-01 --to 2026-12-01",
    ),
)
@with_data_dir
@click.option(
    "--format",
    "form",
    type=click.Choice(["beancount", "csv"]),
    default="beancount",
    show_default=True,
    help="What is written.",
)
@output_option
@click.option(
    "--from",
    "since",
    type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]),
    help="The first moment, in UTC.",
)
@click.option(
    "--to",
    "before",
    type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]),
    help="The moment behind the last, in UTC.",
)
def export(form: str, output: str, since: datetime | None, before: datetime | None) -> None:
    """Write the ledger's entries as they are at this moment.

    For beancount, wallets are liabilities, and each account's balance is asserted at the end. Amounts are decimal
    there, and minor units in CSV.
    """
    period = {"since": _utc(since), "before": _utc(before)}
    with output_file(output) as file, books(current_settings().database) as found:
        (_write_beancount if form == "beancount" else _write_csv)(found, file, period)


def _utc(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.replace(tzinfo=UTC)


def _write_csv(found: Books, file: TextIO, period: dict[str, Any]) -> None:
    writer = csv.writer(file)
    writer.writerow(COLUMNS)
    for piece in found.pieces("export", period):
        writer.writerows((*row[:10], rfc3339_of(row[10]), *row[11:]) for row in piece)


def _write_beancount(found: Books, file: TextIO, period: dict[str, Any]) -> None:
    accounts = found.all("accounts", **period)
    file.write('option "title" "Mercuria"\n')
    currencies = sorted({currency for _, currency, _ in accounts})
    file.writelines(f'option "operating_currency" "{currency}"\n' for currency in currencies)
    last: datetime | None = None
    is_open = False
    debit: tuple[Any, ...] | None = None
    for piece in found.pieces("export", period):
        for row in piece:
            if not is_open:
                file.write("\n")
                file.writelines(_openings(accounts, row[10]))
                is_open = True
            if row[5] == "debit":
                debit = row
            elif debit is not None:
                file.write(_transaction(debit, row))
                debit = None
            last = row[10]
    if last is not None:
        # Beancount asserts a balance at the beginning of a day.
        day = (last + timedelta(days=1)).date()
        file.write("\n")
        for account, currency, balance in accounts:
            # Without this, beancount's default tolerance applies, which is more than a minor unit.
            file.write(
                f"{day} balance {account_name(account)} {_amount(int(balance), currency)} ~ 0 {currency}\n"
            )


def _openings(accounts: list[tuple[Any, ...]], first: datetime) -> Iterator[str]:
    by_account: dict[str, list[str]] = {}
    for account, currency, _ in accounts:
        by_account.setdefault(account_name(account), []).append(currency)
    for name, currencies in by_account.items():
        yield f"{first.date()} open {name} {','.join(currencies)}\n"


def _transaction(debit: tuple[Any, ...], credit: tuple[Any, ...]) -> str:
    partition, sequence, transaction_id, kind, *_ = debit
    currency = debit[7]
    amount = _amount(debit[6], currency)
    effective = f'  effective: "{debit[12]}"\n' if debit[12] else ""
    return (
        f'\n{debit[10].date()} * "{kind}"\n'
        f'  transaction: "{transaction_id}"\n'
        f'  entries: "{partition}-{sequence} {partition}-{credit[1]}"\n'
        f'  time: "{rfc3339_of(debit[10])}"\n'
        f"{effective}"
        f'  hash: "{credit[11]}"\n'
        f"  {account_name(debit[4])}  {amount} {currency}\n"
        f"  {account_name(credit[4])}  -{amount} {currency}\n"
    )


def account_name(account: str) -> str:
    """Return the name that beancount has for an account of the ledger."""
    # A part of a name begins with a capital letter or a digit, and has letters, digits and hyphens.
    before, _, name = account.partition(":")
    return (
        f"Assets:External:{name.capitalize()}" if before == "external" else f"Liabilities:Wallets:W-{account}"
    )


def _amount(minor_units: int, currency: str) -> str:
    return f"{Decimal(minor_units).scaleb(-MINOR_DIGITS[currency]):f}"
