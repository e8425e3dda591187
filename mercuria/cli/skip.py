"""`mercuria skip`: has all workers skip a record that crashes them, and lists skipped records.

Workers, PostgreSQL and Redis need not run: after `mercuria up` has given up, `mercuria up --workers 0` starts
Kafka for this command.
"""

import asyncio
import getpass
import socket
import sys
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from itertools import islice
from typing import Any, TypeVar

import click
import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError
from rich.table import Table
from rich.text import Text

from mercuria.cli.data_dir import with_data_dir
from mercuria.cli.failures import EXIT_UNKNOWN, AnswerIsNo, say
from mercuria.cli.options import examples, json_option
from mercuria.cli.printable import printable
from mercuria.cli.showing import show_json, show_table
from mercuria.config import current_settings
from mercuria.kafka.client import event_reader
from mercuria.kafka.cloudevents import read_event
from mercuria.kafka.record_batches import UnreadableRecord
from mercuria.kafka.skips import MAX_REASON_LETTERS, Skip, all_skips, record_of
from mercuria.kafka.topic_setup import declare_topics
from mercuria.postgres.database import Database, DatabaseUnavailable
from mercuria.projections.checkpoints import Checkpoint, Positions
from mercuria.projections.registry import PROJECTIONS
from mercuria.tables.balance_rows import AppliedPosition, read_rows
from mercuria.timestamps import rfc3339, rfc3339_of
from mercuria.topics import BALANCES_CHANGELOG, PROCESSED, SKIPS, WALLET_COMMANDS, WALLET_EVENTS

ANSWERS_WITHIN_S = 15.0
LOOKED_AT = 10_000
"""How many of the last events of a partition are checked. A worker publishes no more before it dies."""
SHOWN_LETTERS = 200

T = TypeVar("T")


class Refused(AnswerIsNo):
    """The record cannot be skipped."""


@click.command(
    epilog=examples(
        'mercuria skip mercuria.wallet.commands 3 4460 --reason "see ticket 17"',
        "mercuria skip --list",
    )
)
@with_data_dir
@click.argument("topic", type=click.Choice(PROCESSED), required=False)
@click.argument("partition", type=click.IntRange(0), required=False)
@click.argument("offset", type=click.IntRange(0), required=False)
@click.option("--reason", help="Why, for readers of the dead letter and of the list.")
@click.option("--by", help="Who says so. Default: the user and the machine.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--list", "is_list", is_flag=True, help="List what is skipped.")
@json_option
def skip(
    topic: str | None,
    partition: int | None,
    offset: int | None,
    reason: str | None,
    by: str | None,
    yes: bool,
    is_list: bool,
    as_json: bool,
) -> None:
    """Pass over a record that ends every worker which comes to it.

    The log line of the crash names its TOPIC, PARTITION and OFFSET. It becomes a dead letter when it is reached, on
    every worker and for ever: there is no way back. Use it for nothing else. The exit code is 1 where the record cannot
    be skipped, and 2 where Kafka does not answer.
    """
    if is_list:
        _show(_ask(_all), as_json)
        return
    if topic is None or partition is None or offset is None:
        raise click.UsageError(
            "Name the topic, the partition and the offset of the record, or ask for --list."
        )
    reason = (reason or "").strip()
    if not reason or len(reason) > MAX_REASON_LETTERS or not reason.isprintable():
        raise click.UsageError(f"--reason has to be a line of 1 to {MAX_REASON_LETTERS} letters.")
    who = (by or f"{getpass.getuser()}@{socket.gethostname()}").strip()
    at = rfc3339_of(datetime.now(UTC))
    wanted = Skip(topic, partition, offset, reason, who, at)
    known = next((each for each in _ask(_all) if _place(each) == _place(wanted)), None)
    if known is not None:
        _show_one(known, "It is skipped already", as_json)
        return
    record = _ask(lambda: _record_at(wanted))
    if not yes:
        click.echo(_description(record), err=as_json)
        click.confirm("Skip this record, on all workers and for ever?", abort=True, err=as_json)
    _ask(lambda: _append(wanted))
    _show_one(wanted, "Skipped", as_json)


def _show_one(skip: Skip, what: str, as_json: bool) -> None:
    if as_json:
        show_json(msgspec.to_builtins(skip))
    else:
        click.echo(f"{what}: {_line(skip)}")


def _place(skip: Skip) -> tuple[str, int, int]:
    return skip.topic, skip.partition, skip.offset


def _line(skip: Skip) -> str:
    place = f"{skip.topic}, partition {skip.partition}, offset {skip.offset}"
    return printable(f"{place}, by {skip.by} at {skip.at}: {skip.reason}")


def _ask(do: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Return Kafka's answer, or end with a sentence if there is none."""
    settings = current_settings()

    async def within() -> T:
        async with asyncio.timeout(ANSWERS_WITHIN_S):
            return await do()

    try:
        return asyncio.run(within())
    except (TimeoutError, KafkaError, OSError):
        say(
            f"no Kafka answers at {settings.kafka}. Where `mercuria up` has given up, `mercuria up --workers"
            f" 0 --data-dir {settings.data_dir}` starts it without workers; else point MERCURIA_KAFKA at it."
        )
        sys.exit(EXIT_UNKNOWN)


async def _all() -> list[Skip]:
    return sorted([each async for each in all_skips(current_settings().kafka)], key=_place)


async def _record_at(wanted: Skip) -> Any:
    """Return the record to skip.

    Raises:
        Refused: there is no such record, or it has been processed.
    """
    tp = TopicPartition(wanted.topic, wanted.partition)
    async with event_reader(current_settings().kafka, wanted.topic) as reader:
        if tp not in reader.assignment():
            raise Refused(f"{wanted.topic} has no partition {wanted.partition}.")
        end = (await reader.end_offsets([tp]))[tp]
        if wanted.offset >= end:
            raise Refused(
                f"Partition {wanted.partition} of {wanted.topic} can be read up to offset {end - 1}: there is no record"
                f" at {wanted.offset} yet."
            )
        record = await _first_from(reader, tp, wanted.offset, end)
    if record is None or record.offset != wanted.offset:
        raise Refused(
            f"There is no record at offset {wanted.offset}, but the mark of a Kafka transaction, or a record of one"
            " that was aborted."
        )
    await (_require_undecided if wanted.topic == WALLET_COMMANDS else _require_unwritten)(wanted)
    return record


async def _first_from(reader: AIOKafkaConsumer, tp: TopicPartition, offset: int, end: int) -> Any:
    reader.assign([tp])
    reader.seek(tp, offset)
    while await reader.position(tp) < end:
        for record in (await reader.getmany(tp, timeout_ms=100, max_records=1)).get(tp, ()):
            return record
    return None


async def _require_undecided(wanted: Skip) -> None:
    """Raise `Refused` if the record is decided, or if a worker has published its decision before it died."""
    rows = read_rows((each.key, each.value) for each in await _last(BALANCES_CHANGELOG, wanted.partition, 1))
    if any(isinstance(row, AppliedPosition) and row.offset >= wanted.offset for row in rows):
        raise Refused(f"The record at {wanted.offset} is decided already, so nothing is left to be skipped.")
    for record in await _last(WALLET_EVENTS, wanted.partition, LOOKED_AT):
        if read_event(record.value).offset == wanted.offset:
            raise Refused(
                f"What became of the record at {wanted.offset} is published already (offset {record.offset} of"
                f" {WALLET_EVENTS}): it can be decided, so to skip it would contradict that."
            )


async def _require_unwritten(wanted: Skip) -> None:
    """Raise `Refused` if PostgreSQL has the event; skip this check if PostgreSQL is unavailable."""
    database = Database(current_settings().database)
    try:
        readers = [
            await Positions(database, name).checkpoints()
            for name, flow in PROJECTIONS.items()
            if flow.reads == wanted.topic
        ]
    except (DatabaseUnavailable, TimeoutError):
        return
    finally:
        await database.close()
    if all(each.get(wanted.partition, Checkpoint()).read >= wanted.offset for each in readers):
        raise Refused(
            f"The event at {wanted.offset} is in PostgreSQL already, so nothing is left to be skipped."
        )


async def _last(topic: str, partition: int, count: int) -> list[Any]:
    """Return the last records of a partition."""
    tp, found = TopicPartition(topic, partition), list[Any]()
    async with event_reader(current_settings().kafka, topic) as reader:
        start, end = (await reader.beginning_offsets([tp]))[tp], (await reader.end_offsets([tp]))[tp]
        reader.assign([tp])
        reader.seek(tp, max(start, end - count))
        while await reader.position(tp) < end:
            found += (await reader.getmany(tp, timeout_ms=100)).get(tp, ())
    return found


async def _append(wanted: Skip) -> None:
    # An installation that is older than skips lacks this topic until a worker starts again.
    settings = current_settings()
    await declare_topics(settings.kafka, settings.partitions, settings.replication)
    record = record_of(wanted)
    producer = AIOKafkaProducer(bootstrap_servers=settings.kafka, acks="all", enable_idempotence=True)
    await producer.start()
    try:
        await producer.send_and_wait(SKIPS, record.value, key=record.key, partition=wanted.partition)
    finally:
        await producer.stop()


def _description(record: Any) -> str:
    """Return a description of a record. Its content may be anything, so it is escaped."""
    value = record.value or b""
    shown = ascii(value[:SHOWN_LETTERS].decode(errors="replace"))
    more = f" and {len(value) - SHOWN_LETTERS:,} bytes more" if len(value) > SHOWN_LETTERS else ""
    if isinstance(record, UnreadableRecord):
        shown = record.fault
    when = rfc3339(record.timestamp)
    headers = ", ".join(ascii(name) for name, _ in islice(record.headers, 20)) or "none"
    return f"key:     {record.key!a}\nvalue:   {shown}{more}\nheaders: {headers}\ntime:    {when}"


def _show(skips: list[Skip], as_json: bool) -> None:
    if as_json:
        show_json([msgspec.to_builtins(each) for each in skips])
    elif not skips:
        click.echo("Nothing is skipped.")
    else:
        table = Table("topic", "partition", "offset", "by", "at", "reason")
        for each in skips:
            cells = each.topic, str(each.partition), str(each.offset), each.by, each.at, each.reason
            table.add_row(*(Text(cell) for cell in cells))
        show_table(table)
