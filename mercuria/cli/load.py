"""`mercuria load`: feeds a statement's operations through Kafka, and waits until the workers have decided them all.

Every account becomes a wallet. All ids are derived from the currency, the account and the transaction_id, so that
loading a file twice, or going on with one after a Ctrl-C, changes nothing that was done before.
"""

import asyncio
import logging
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Generic, NamedTuple, TypeVar
from uuid import UUID, uuid5

import click
from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from faust.cli.base import cli
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from mercuria.app import settings
from mercuria.cli.firsts import Firsts, T
from mercuria.cli.options import data_dir_option
from mercuria.cli.statement import Operation, Statement
from mercuria.domain.commands import ClientCommand, Deposit, OpenWallet, Withdraw
from mercuria.domain.events import BalanceUpdated, CommandRejected, Event
from mercuria.domain.money import MoneyError, is_currency, parse_amount
from mercuria.domain.rejections import Code
from mercuria.streams.client import CommandProducer, Sent, command_producer, event_reader
from mercuria.streams.cloudevents import read_event
from mercuria.topics import WALLET_COMMANDS, WALLET_EVENTS

NAMESPACE = UUID("6f1c6d2e-3c0a-5d0b-9d0e-5b8b7a4f2c11")
"""Where all ids of loaded owners, wallets and commands come from. With another one, everything would load again."""

IN_FLIGHT = 16_384
"""How many commands may be undecided at a time: enough that no worker ever waits for the loader."""
SENT_AT_ONCE = 2_048
CONNECT_TIMEOUT_S = 15
CLOSE_TIMEOUT_S = 5
QUIET_S = 3
"""After so long without a decision, the progress bar says what it waits for."""
RECEIPTS_MARGIN_MS = 60 * 60 * 1000
MS_PER_DAY = 24 * 60 * 60 * 1000

EXIT_INTERRUPTED = 130

S = TypeVar("S")


class LoadError(Exception):
    """The load cannot begin or go on; the message is what the person who started it reads."""


@cli.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@data_dir_option
@click.option("--currency", required=True, help="The currency of all accounts: an ISO 4217 code, such as CZK.")
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
            sys.exit(_run(opened, terms, verify, patience_s))
    except LoadError as error:
        click.echo(f"mercuria: {error}", err=True)
        sys.exit(1)


def _limit(text: str, currency: str) -> int:
    if not is_currency(currency):
        raise LoadError(f"--currency {currency}: there is no such currency; it must be an ISO 4217 code such as CZK.")
    try:
        limit = parse_amount(text, currency)
    except MoneyError as error:
        raise LoadError(f"--overdraft-limit: {error}") from None
    if limit < 0:
        raise LoadError(f"--overdraft-limit {text}: it must not be negative; 10000.00 lets a wallet go to -10000.00.")
    return limit


def _run(file: BinaryIO, terms: "Terms", verify: bool, patience_s: float) -> int:
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


# What is sent.


class Terms(NamedTuple):
    """On what terms wallets are opened; the limit in minor units."""

    currency: str
    overdraft_limit: int

    def wallet_id(self, account: str) -> UUID:
        """Return the id of an account's wallet."""
        return uuid5(owner_id(account), self.currency)

    def opening(self, account: str) -> OpenWallet:
        """Return the command that opens an account's wallet; its id is the wallet's."""
        wallet_id = self.wallet_id(account)
        return OpenWallet(
            id=wallet_id,
            wallet_id=wallet_id,
            owner_id=owner_id(account),
            currency=self.currency,
            overdraft_limit=self.overdraft_limit,
            metadata={"account": account},
        )

    def command(self, operation: Operation, wallet_id: UUID) -> Deposit | Withdraw:
        """Return the command that does an operation."""
        kind = Deposit if operation.kind == "deposit" else Withdraw
        metadata = {"date": operation.date, "note": operation.note}
        return kind(
            id=uuid5(wallet_id, operation.transaction_id),
            wallet_id=wallet_id,
            amount=operation.amount,
            currency=self.currency,
            reference=operation.transaction_id,
            metadata={name: text for name, text in metadata.items() if text},
        )


def owner_id(account: str) -> UUID:
    """Return the id of an account's owner, who has one wallet for each currency."""
    return uuid5(NAMESPACE, account)


# The steps.


def _check(statement: Statement, report: "Report") -> list[str]:
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
        raise LoadError("nothing was sent, because the file cannot be loaded as it is:\n  " + "\n  ".join(lines))
    report.expected = findings.operations
    return findings.accounts


async def _load(
    statement: Statement, accounts: list[str], terms: Terms, report: "Report", patience_s: float
) -> None:
    """Open the wallets; when all are open on these terms, do the operations."""
    await _require_topics()
    async with _connected(patience_s) as feed, _Bar(report.console, feed, report.expected + len(accounts)):
        began = time.monotonic()
        openings = Openings()
        await feed.run(((terms.opening(account), account) for account in accounts), openings.hear)
        openings.require_all(terms)
        wallet_ids = {account: terms.wallet_id(account) for account in accounts}
        commands = (
            (terms.command(operation, wallet_ids[operation.account]), operation)
            for operation in statement.operations()
        )
        await feed.run(commands, report.hear)
        report.seconds = time.monotonic() - began


async def _require_topics() -> None:
    """Check that Mercuria's Kafka is there, as the settings say.

    Raises:
        LoadError: it is not; the message says what to do.
    """
    start = f"start Mercuria with `mercuria up --data-dir {settings.data_dir}`"
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka)
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            await admin.start()
            topics = await admin.describe_topics([WALLET_COMMANDS, WALLET_EVENTS])
    except (TimeoutError, KafkaError, OSError):
        raise LoadError(f"no Kafka answers at {settings.kafka}; {start}, or point MERCURIA_KAFKA at it.") from None
    finally:
        await admin.close()
    for topic in topics:
        count = len(topic["partitions"])
        if not count:
            raise LoadError(f"the Kafka at {settings.kafka} has no topic {topic['topic']}; {start}.")
        if count != settings.partitions:
            raise LoadError(
                f"{topic['topic']} has {count} partitions, not {settings.partitions}; set MERCURIA_PARTITIONS={count}."
            )


# Asking and hearing.


@asynccontextmanager
async def _connected(patience_s: float) -> AsyncIterator["Feed"]:
    """Connect a `Feed`; leaving takes seconds at most, also when Kafka has gone."""
    connections = AsyncExitStack()
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            producer = command_producer(settings.kafka, settings.partitions)
            reader = event_reader(settings.kafka)
            feed = Feed(
                await connections.enter_async_context(producer),
                await connections.enter_async_context(reader),
                patience_s,
            )
    except (TimeoutError, KafkaError) as error:
        await _close(connections)
        raise LoadError(f"Kafka at {settings.kafka} does not answer ({type(error).__name__}).") from None
    try:
        yield feed
    finally:
        await _close(connections)


async def _close(connections: AsyncExitStack) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await connections.aclose()


class Answer(NamedTuple):
    """What became of a command. `is_repeat`: it was decided before it was sent this time."""

    event: Event
    time_ms: int
    is_repeat: bool


class Feed:
    """Sends commands, a bounded number ahead of the decisions, and finds the events that answer them."""

    def __init__(self, producer: CommandProducer, reader: AIOKafkaConsumer, patience_s: float) -> None:
        self.decided = 0
        self._producer = producer
        self._reader = reader
        self._patience_s = patience_s
        self._waiting: dict[UUID, tuple[Sent, Any]] = {}
        self._waiting_in = [0] * settings.partitions
        self._moved_at = time.monotonic()
        self._patience = asyncio.timeout(None)
        self._is_sending = False

    async def run(self, commands: Iterable[tuple[ClientCommand, S]], hear: Callable[[S, Answer], None]) -> None:
        """Send commands, each with its subject, and let `hear` know of every subject's answer.

        Raises:
            LoadError: nothing has been decided for too long, or Kafka refuses.
        """
        try:
            async with asyncio.timeout(self._patience_s) as self._patience:
                for chunk in _chunks(commands, SENT_AT_ONCE):
                    while len(self._waiting) + len(chunk) > IN_FLIGHT:
                        await self._collect(hear)
                    await self._send(chunk)
                while self._waiting:
                    await self._collect(hear)
        except TimeoutError:
            raise LoadError(f"gave up: {self.stillness()}. {_AFTERWARDS}") from None
        except KafkaError as error:
            raise LoadError(f"Kafka at {settings.kafka} refuses: {error}. {_AFTERWARDS}") from None

    @property
    def still_s(self) -> float:
        """For how long nothing has been decided."""
        return time.monotonic() - self._moved_at

    def stillness(self) -> str:
        """Say what is being waited for, as a sentence without its full stop."""
        since = f"for {self.still_s:.0f} s"
        if self._is_sending:
            return f"Kafka at {settings.kafka} has not taken a command {since}"
        partitions = [str(number) for number, count in enumerate(self._waiting_in) if count]
        which = f"partition{'s' * (len(partitions) > 1)} {', '.join(partitions)}"
        return f"no worker has decided anything {since}, and {sum(self._waiting_in):,} commands wait in {which}"

    async def _send(self, chunk: list[tuple[ClientCommand, Any]]) -> None:
        self._is_sending = True
        places = await self._producer.send([command for command, _ in chunk])
        self._is_sending = False
        for (command, subject), place in zip(chunk, places, strict=True):
            self._waiting[command.id] = place, subject
            self._waiting_in[place.partition] += 1

    async def _collect(self, hear: Callable[[Any, Answer], None]) -> None:
        before = self.decided
        for records in (await self._reader.getmany(timeout_ms=200)).values():
            for record in records:
                event = read_event(record.value)
                waiting = self._waiting.pop(_command_id(event), None)
                if waiting is not None:
                    self._hear(event, record.timestamp, *waiting, hear)
        if self.decided > before:
            self._moved_at = time.monotonic()
            self._patience.reschedule(asyncio.get_running_loop().time() + self._patience_s)

    def _hear(
        self, event: Event, time_ms: int, place: Sent, subject: Any, hear: Callable[[Any, Answer], None]
    ) -> None:
        self.decided += 1
        self._waiting_in[place.partition] -= 1
        hear(subject, Answer(event, time_ms, event.offset < place.offset))


_AFTERWARDS = (
    "What was sent will be decided when Mercuria runs again (`mercuria status` tells what does);"
    " load the file again then: nothing counts twice."
)


def _command_id(event: Any) -> Any:
    return event.transaction_id if type(event) is BalanceUpdated else event.command_id


def _chunks(items: Iterable[S], size: int) -> Iterator[list[S]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk
