"""`mercuria load`: feeds a statement's operations through Kafka, and waits until the workers have decided them all.

Every account becomes a wallet. All ids are derived from the currency, the account and the transaction_id, so that
loading a file twice, or going on with one after a Ctrl-C, changes nothing that was done before.
"""

import asyncio
import logging
import sys
import time
from functools import cache
from pathlib import Path
from typing import BinaryIO

import click
from faust.cli.base import cli

from mercuria.cli.load.feed import LoadError, connected, progress_bar, require_topics
from mercuria.cli.load.openings import Openings, Terms
from mercuria.cli.load.report import Report
from mercuria.cli.load.statement import Statement
from mercuria.cli.options import data_dir_option
from mercuria.domain.money import MoneyError, is_currency, parse_amount

EXIT_INTERRUPTED = 130


@cli.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@data_dir_option
@click.option(
    "--currency", required=True, help="The currency of all accounts: an ISO 4217 code, such as CZK."
)
@click.option(
    "--overdraft-limit",
    default="0",
    help="How far below zero each wallet may go, in the currency: 10000.00.  [default: not at all]",
)
@click.option("--verify", is_flag=True, help="Compare every balance with the column balance_after.")
@click.option(
    "--timeout",
    "patience_s",
    type=click.FloatRange(1),
    default=60,
    show_default=True,
    help="Give up when nothing has been decided for so many seconds.",
)
def load(file: Path, currency: str, overdraft_limit: str, verify: bool, patience_s: float) -> None:
    """Load the operations in FILE into wallets, one for each account.

    FILE is CSV in UTF-8, with the columns transaction_id, date, account, operation (deposit or withdraw), amount,
    balance_after and note; amounts are whole numbers of minor units. A file can be loaded again: what was done before
    is not done twice. The exit code is 0 when every operation was accepted (and, with --verify, every balance is as
    the file has it).
    """
    # What the Kafka client has to say about a broker that is away is said here in one sentence.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL + 1)
    try:
        terms = Terms(currency, _limit(overdraft_limit, currency))
        with file.open("rb") as opened:
            if not opened.seekable():
                raise LoadError(f"{file} cannot be read twice: it must be a file, not a pipe.")
            sys.exit(_run(opened, terms, verify, patience_s))
    except LoadError as error:
        click.echo(f"mercuria: {error}", err=True)
        sys.exit(1)


def _limit(text: str, currency: str) -> int:
    if not is_currency(currency):
        raise LoadError(
            f"--currency {currency}: there is no such currency; it must be an ISO 4217 code such as CZK."
        )
    try:
        limit = parse_amount(text, currency)
    except MoneyError as error:
        raise LoadError(f"--overdraft-limit: {error}") from None
    if limit < 0:
        raise LoadError(
            f"--overdraft-limit {text}: it must not be negative; 10000.00 lets a wallet go to -10000.00."
        )
    return limit


def _run(file: BinaryIO, terms: Terms, verify: bool, patience_s: float) -> int:
    """Load an open file, report, and return the exit code."""
    report = Report(verify)
    statement = Statement(file, with_balances=verify)
    try:
        accounts = _check(statement, report)
        asyncio.run(_load(statement, accounts, terms, report, patience_s))
    except KeyboardInterrupt:
        click.echo(f"\nStopped. {report.interruption()}", err=True)
        return EXIT_INTERRUPTED
    return report.show(len(accounts))


def _check(statement: Statement, report: Report) -> list[str]:
    """Return the file's accounts.

    Raises:
        LoadError: there are bad rows; it names them.
    """
    with report.console.status("Reading the file"):
        findings = statement.check()
    faults = findings.faults
    if faults:
        lines = [f"line {fault.line}: {fault.what}" for fault in faults]
        lines += [f"and {faults.left_out:,} more"] * bool(faults.left_out)
        raise LoadError(
            "nothing was sent, because the file cannot be loaded as it is:\n  " + "\n  ".join(lines)
        )
    report.expected = findings.operations
    return findings.accounts


async def _load(
    statement: Statement, accounts: list[str], terms: Terms, report: Report, patience_s: float
) -> None:
    """Open the wallets; when all are open on these terms, do the operations."""
    await require_topics()
    wallet_id = cache(terms.wallet_id)
    openings = Openings()
    commands = (
        (terms.command(operation, wallet_id(operation.account)), operation)
        for operation in statement.operations()
    )
    async with connected(patience_s) as feed:
        began = time.monotonic()
        with progress_bar(feed, report.expected + len(accounts), report.console):
            await feed.run(((terms.opening(account), account) for account in accounts), openings.hear)
            openings.require_all(terms)
            await feed.run(commands, report.hear)
        report.seconds = time.monotonic() - began
    if report.done != report.expected:
        raise LoadError("the file was changed while it was loaded; load it again: nothing counts twice.")
