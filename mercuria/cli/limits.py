"""`mercuria wallet set-limit`: changes a wallet's overdraft limit, as any trusted producer on Kafka may."""

import asyncio
import logging
from uuid import UUID, uuid4

import click
import msgspec
from aiokafka.errors import KafkaError

from mercuria.cli.data_dir import with_data_dir
from mercuria.cli.failures import AnswerIsNo
from mercuria.cli.load.feed import require_topics
from mercuria.cli.options import examples, json_option
from mercuria.cli.showing import show_json
from mercuria.cli.wallet import TablesError, find, wallet
from mercuria.config import current_settings
from mercuria.domain.commands import SetLimits
from mercuria.domain.events import CommandRejected, Event, LimitsChanged
from mercuria.domain.money import MoneyError, format_amount, parse_amount
from mercuria.domain.parsing import Unreadable, read_command
from mercuria.domain.wallet import Wallet
from mercuria.kafka.client import command_producer, event_reader
from mercuria.kafka.cloudevents import read_event
from mercuria.postgres.database import Database, DatabaseUnavailable
from mercuria.projections.wallets.queries import History


class LimitError(Exception):
    """The limit cannot be requested, or the result is unknown; the message is a sentence."""


@wallet.command(
    "set-limit",
    epilog=examples(
        "mercuria wallet set-limit 5a7d1c52-0f6b-4c5e-9d39-2f1f6e0c8a11 500.00 \\",
        '    --reason "agreed on by phone"',
    ),
)
@click.argument("wallet_id", metavar="ID", type=click.UUID)
@click.argument("amount", metavar="AMOUNT")
@with_data_dir
@click.option("--reason", help="Why, for the wallet's history: up to 255 characters.")
@click.option(
    "--timeout",
    "patience_s",
    type=click.FloatRange(1),
    default=60,
    show_default=True,
    help="Give up when the wallet has not answered for so many seconds.",
)
@json_option
def set_limit(wallet_id: UUID, amount: str, reason: str | None, patience_s: float, as_json: bool) -> None:
    """Change how far below zero the balance of a wallet may go.

    AMOUNT is in the currency of the wallet ID, such as 10000.00; 0 lets it go no further than to zero.

    The limit counts for what comes. Where the balance is below it already, money may come in, and none may leave until
    the balance is above the limit again. The exit code is 1 where there is no such wallet or it refuses the limit, and
    2 where it cannot be asked or has not answered; the same command can be given again.
    """
    # The messages of the Kafka client about an unavailable broker are replaced by one sentence here.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL + 1)
    try:
        found, changed = asyncio.run(_set_limit(wallet_id, amount, reason, patience_s))
    except KeyboardInterrupt:
        click.echo("\nStopped. Where the command was sent, the wallet decides it all the same.", err=True)
        raise
    if as_json:
        show_json(
            {
                "id": str(found.id),
                "owner_id": str(found.owner_id),
                "currency": found.currency,
                "balance": changed.balance,
                "overdraft_limit": changed.overdraft_limit,
                "status": changed.status,
                "version": changed.version,
            }
        )
        return
    click.echo(f"The wallet may go to {_amount(-changed.overdraft_limit, found)} now.")
    if changed.balance < -changed.overdraft_limit:
        click.echo(
            f"It has {_amount(changed.balance, found)}: nothing can leave it until it has more than that."
        )


async def _set_limit(
    wallet_id: UUID, amount: str, reason: str | None, patience_s: float
) -> tuple[Wallet, LimitsChanged]:
    """Return the wallet as it was, and its decision."""
    found = await _find(wallet_id)
    command = SetLimits(
        id=uuid4(), wallet_id=wallet_id, overdraft_limit=_limit(amount, found.currency), reason=reason
    )
    try:
        read = read_command(msgspec.json.encode(command))
    except UnicodeEncodeError:
        raise LimitError("--reason: it is no text in UTF-8.") from None
    if isinstance(read, Unreadable):
        raise LimitError(f"--reason: {read.detail}")
    await require_topics()
    event = await _decide(command, patience_s)
    if isinstance(event, CommandRejected):
        raise AnswerIsNo(f"the wallet refuses it: {event.code}: {event.detail}")
    assert isinstance(event, LimitsChanged), "a command gives its own event"
    return found, event


async def _find(wallet_id: UUID) -> Wallet:
    """Return a wallet, for its currency: from the workers' tables, or else from PostgreSQL.

    Raises:
        AnswerIsNo: there is no such wallet.
        TablesError: neither can be read.
    """
    settings = current_settings()
    try:
        found, why = find(settings.data_dir, wallet_id, settings.partitions), None
    except TablesError as error:
        found, why = None, error
    if found is None:
        database = Database(settings.database)
        try:
            found = await History(database).wallet(wallet_id)
        except DatabaseUnavailable:
            if why is not None:
                raise why from None
        finally:
            await database.close()
    if found is None:
        raise AnswerIsNo(f"there is no wallet {wallet_id}.")
    return found


def _limit(text: str, currency: str) -> int:
    try:
        limit = parse_amount(text, currency)
    except MoneyError as error:
        raise LimitError(f"AMOUNT: {error}") from None
    if limit < 0:
        raise LimitError(f"AMOUNT {text}: it must not be negative; 10000.00 lets a wallet go to -10000.00.")
    return limit


async def _decide(command: SetLimits, patience_s: float) -> Event:
    """Send a command, and return the event that answers it."""
    settings = current_settings()
    is_sent = False
    try:
        async with (
            asyncio.timeout(patience_s),
            command_producer(settings.kafka, settings.partitions) as producer,
            event_reader(settings.kafka) as reader,
        ):
            is_sent = True
            (place,) = await producer.send([command])
            while True:
                for tp, records in (await reader.getmany(timeout_ms=200)).items():
                    for record in records if tp.partition == place.partition else ():
                        event = read_event(record.value)
                        if event.offset == place.offset:
                            return event
    except (TimeoutError, KafkaError) as error:
        if not is_sent:
            raise LimitError(f"Kafka at {settings.kafka} does not answer ({type(error).__name__}).") from None
        raise LimitError(
            f"the wallet has not answered for {patience_s:.0f} s: what was sent is decided when Mercuria runs again"
            " (`mercuria status` says what does)."
        ) from None


def _amount(minor: int, found: Wallet) -> str:
    return f"{format_amount(minor, found.currency)} {found.currency}"
