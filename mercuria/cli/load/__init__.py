"""`mercuria load`: sends a statement's operations through Kafka, and waits for all decisions.

Every account becomes a wallet. All ids are derived from the currency, the account and the transaction_id.
Loading a file twice, or resuming after a Ctrl-C, therefore does not repeat earlier operations. Every load
retries refused operations (`attempts`).
"""

import asyncio
import logging
import math
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO, cast

import click

from mercuria.cli.data_dir import with_data_dir
from mercuria.cli.load.errors import LoadError
from mercuria.cli.load.loading import Loading
from mercuria.cli.load.report import Report
from mercuria.cli.load.statement import Findings, Statement
from mercuria.cli.load.terms import Terms
from mercuria.cli.options import examples, json_option
from mercuria.domain.money import MoneyError, is_currency, parse_amount
from mercuria.domain.printable import printable

EXIT_NOT_LOADED = 2
"""The file or the options are unusable, or Mercuria does not answer."""


@click.command(
    epilog=examples(
        "mercuria load bank.csv --currency CZK --overdraft-limit 10000.00 --verify",
        "zcat bank.csv.gz | mercuria load - --currency EUR --opening-balances",
    )
)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path))
@with_data_dir
@click.option(
    "--currency", required=True, help="The currency of all accounts: an ISO 4217 code, such as CZK."
)
@click.option(
    "--overdraft-limit",
    help="How far below zero each wallet may go, in the currency: 10000.00. A wallet of an earlier load gets the limit,"
    " too, if it was opened with another one.  [default: not at all; wallets of earlier loads keep their limit]",
)
@click.option(
    "--opening-balances",
    is_flag=True,
    help="Begin each account with the balance that its first balance_after implies.",
)
@json_option
@click.option("--verify", is_flag=True, help="Compare every balance with the column balance_after.")
@click.option(
    "--timeout",
    "patience_s",
    type=click.FloatRange(1),
    default=60,
    show_default=True,
    help="Give up when nothing has been decided for so many seconds.",
)
def load(
    file: Path,
    currency: str,
    overdraft_limit: str | None,
    opening_balances: bool,
    verify: bool,
    patience_s: float,
    as_json: bool,
) -> None:
    """Load the operations in FILE into wallets, one for each account.

    FILE is CSV in UTF-8 (- is standard input), with the columns transaction_id, date, account, operation (deposit or
    withdraw), amount, balance_after and note; amounts are whole numbers of minor units. Blank rows and rows of amount
    0 are skipped. Dates become effective dates.

    A file can be loaded again: what was done before is not done twice, and what was refused is tried again. The exit
    code is 0 when every operation was accepted, now or before (and, with --verify, every balance is as the file has
    it); 1 when one was refused or a balance differs; 2 when the file or the options cannot be used, or Mercuria does
    not answer.
    """
    # The messages of the Kafka client about an unavailable broker are replaced by one sentence here.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL + 1)
    try:
        if math.isnan(patience_s):
            raise LoadError("--timeout nan: it must be a number of seconds.")
        terms = Terms(currency, _limit(overdraft_limit, currency))
        with _opened(file) as opened:
            statement = Statement(opened, with_balances=verify, with_openings=opening_balances)
            report = _run(statement, terms, verify, opening_balances, patience_s)
        sys.exit(report.show(terms, opening_balances, as_json))
    except LoadError as error:
        click.echo(f"mercuria: {error}", err=True)
    sys.exit(EXIT_NOT_LOADED)


def _limit(text: str | None, currency: str) -> int | None:
    if not is_currency(currency):
        raise LoadError(
            f"--currency {printable(currency)}: there is no such currency; it must be an ISO 4217 code such as CZK."
        )
    if text is None:
        return None
    try:
        limit = parse_amount(text, currency)
    except MoneyError as error:
        raise LoadError(f"--overdraft-limit: {error}") from None
    if limit < 0:
        raise LoadError(
            f"--overdraft-limit {text}: it must not be negative; 10000.00 lets a wallet go to -10000.00."
        )
    return limit


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """Open a file; the content of a pipe is copied first, because it is read twice."""
    name = printable(str(path))
    with ExitStack() as opened:
        try:
            source = sys.stdin.buffer if str(path) == "-" else opened.enter_context(path.open("rb"))
            mode = os.fstat(source.fileno()).st_mode
            if not stat.S_ISREG(mode):
                if str(path) != "-" and not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
                    raise LoadError(f"{name} is neither a file nor a pipe.")
                copy = opened.enter_context(TemporaryFile())
                shutil.copyfileobj(source, copy)
                source = cast(BinaryIO, copy)
        except (OSError, AttributeError) as error:
            # If standard input is closed, Python has no object for it.
            raise LoadError(f"{name} cannot be read: {getattr(error, 'strerror', 'it is closed')}.") from None
        yield source


def _run(statement: Statement, terms: Terms, verify: bool, has_openings: bool, patience_s: float) -> Report:
    """Load a statement, and return the report."""
    report = Report(verify)
    try:
        report.findings = _check(statement, report)
        asyncio.run(Loading(statement, terms, report, has_openings).run(patience_s))
    except KeyboardInterrupt:
        click.echo(f"\nStopped. {report.interruption()}", err=True)
        raise
    return report


def _check(statement: Statement, report: Report) -> Findings:
    """Return the findings about the file.

    Raises:
        LoadError: there are bad rows; the message names them.
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
    return findings
