"""`mercuria rebuild`: empties PostgreSQL's tables, and has running workers fill them from the log.

The command shows the progress. Meanwhile, money can be moved and balances can be read, since both need only
the workers. Lists are incomplete until the rebuild is done.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, NamedTuple

import click
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mercuria.cli.data_dir import with_data_dir
from mercuria.cli.failures import AnswerIsNo
from mercuria.cli.load.words import count
from mercuria.cli.options import FiniteRange, examples, json_option
from mercuria.cli.showing import show_json
from mercuria.config import current_settings
from mercuria.kafka.client import event_reader
from mercuria.projections.rebuild import TABLES, Checkpoints, RebuildError, Tables
from mercuria.projections.registry import PROJECTIONS
from mercuria.topics import CONSUMER_GROUP

CONNECT_TIMEOUT_S = 15
LOOK_EVERY_S = 0.2


class StandsStill(Exception):
    """The workers do not fill the empty or partly filled tables; the message gives their progress."""


class Extent(NamedTuple):
    """The extent of a topic's partition: the offset of its first record, and the offset after its last."""

    start: int
    end: int


class Rebuilt(NamedTuple):
    """The number of records in the log, how many of them the tables hold again, and the rows of each table.

    `done` is 0 if no worker runs.
    """

    records: int
    done: int
    seconds: float
    rows: dict[str, int]


Extents = dict[str, dict[int, Extent]]
"""The extents by stage and partition."""


@click.command(epilog=examples("mercuria rebuild", "mercuria rebuild --yes --timeout 600"))
@with_data_dir
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--timeout",
    "patience_s",
    type=FiniteRange(1),
    default=60,
    show_default=True,
    help="Stop watching when the workers have brought in nothing for so many seconds.",
)
@json_option
def rebuild(yes: bool, patience_s: float, as_json: bool) -> None:
    """Fill PostgreSQL's tables again from the log.

    The tables of wallets, transactions, the ledger and analytics are emptied. Running workers fill them; this command
    waits until they have brought in all that the log holds now. Accounts of people are not touched, and nothing is
    published again. The exit code is 0 when all is there, or when no worker runs that could fill the tables: then the
    next one does. It is 1 where the log lacks what the tables hold, which stay as they are then, and 2 where a server
    is away or the workers have brought in nothing for --timeout.
    """
    tables = Tables(current_settings().database_owner)
    try:
        before = tables.checkpoints()
        extents = asyncio.run(_extents())
        _require_whole_log(before, extents)
        if not yes:
            click.confirm(_question(), abort=True, err=as_json)
        began_s = time.monotonic()
        tables.empty()
        rebuilt = asyncio.run(_watch(tables, extents, began_s, patience_s))
    except KeyboardInterrupt:
        click.echo(
            "\nStopped watching. Workers go on filling the tables when they have been emptied.", err=True
        )
        raise
    _show(rebuilt, as_json)


def _question() -> str:
    return (
        f"Empty {', '.join(TABLES[:-1])} and {TABLES[-1]}, and fill them again from the log? Lists of wallets and"
        " transactions are short until that is done."
    )


def _require_whole_log(checkpoints: Checkpoints, extents: Extents) -> None:
    """Raise `AnswerIsNo` if the log lacks records whose data the tables hold: it could not be rebuilt."""
    for stage, by_partition in extents.items():
        topic = PROJECTIONS[stage].reads
        for partition, extent in by_partition.items():
            if extent.start > 0:
                raise AnswerIsNo(
                    f"partition {partition} of {topic} begins with record {extent.start}: what came before is"
                    " only in the tables, so they are left as they are"
                )
    for stage, reads in checkpoints.items():
        topic = PROJECTIONS[stage].reads
        for partition, read in reads.items():
            end = extents[stage].get(partition, Extent(0, 0)).end
            if read >= end:
                raise AnswerIsNo(
                    f"partition {partition} of {topic} ends with record {end - 1}, and the tables hold what"
                    f" came up to record {read}: this is not their log, so they are left as they are"
                )


async def _watch(tables: Tables, extents: Extents, began_s: float, patience_s: float) -> Rebuilt:
    """Wait until the tables hold everything up to the ends, if a worker runs that fills them.

    Raises:
        StandsStill: the workers have written nothing for `patience_s`.
    """
    total = sum(extent.end for by_partition in extents.values() for extent in by_partition.values())
    if total and not await _workers():
        return Rebuilt(total, 0, time.monotonic() - began_s, {})
    moved_s, done = time.monotonic(), 0
    with _bars(extents) as show:
        while done < total:
            filled = _filled(await asyncio.to_thread(tables.checkpoints), extents)
            show(filled)
            if sum(filled.values()) > done:
                moved_s, done = time.monotonic(), sum(filled.values())
            elif time.monotonic() > moved_s + patience_s:
                raise StandsStill(
                    f"the workers have brought in nothing for {patience_s:.0f} s; {done:,} of {count(total, 'record')}"
                    " are in the tables. They go on when they can (`mercuria status` shows what runs)"
                )
            await asyncio.sleep(LOOK_EVERY_S if done < total else 0)
    seconds = time.monotonic() - began_s
    counts = await asyncio.to_thread(tables.counts)
    return Rebuilt(total, total, seconds, counts)


def _show(rebuilt: Rebuilt, as_json: bool) -> None:
    if as_json:
        show_json(rebuilt._asdict())
    elif rebuilt.done < rebuilt.records:
        click.echo("The tables are empty, and no worker runs: the next one fills them (`mercuria up`).")
    else:
        rows = ", ".join(f"{number:,} {table}" for table, number in rebuilt.rows.items())
        click.echo(f"Rebuilt from {count(rebuilt.records, 'record')} in {rebuilt.seconds:.1f} s: {rows}.")


def _filled(checkpoints: Checkpoints, extents: Extents) -> dict[str, int]:
    """Return by stage how many records up to the ends are in the tables."""
    return {
        stage: sum(
            min(checkpoints[stage].get(partition, -1) + 1, extent.end)
            for partition, extent in by_partition.items()
        )
        for stage, by_partition in extents.items()
    }


@contextmanager
def _bars(extents: Extents) -> Iterator[Any]:
    """Show a progress bar for each stage; yield the function that updates them."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bars = {
            stage: progress.add_task(stage, total=sum(extent.end for extent in by_partition.values()))
            for stage, by_partition in extents.items()
        }

        def show(filled: Mapping[str, int]) -> None:
            for stage, number in filled.items():
                progress.update(bars[stage], completed=number)

        yield show


async def _extents() -> Extents:
    """Return the current extents of the stages' topics, without topics that do not exist."""
    async with _answers():
        return {name: await _extents_of(flow.reads) for name, flow in PROJECTIONS.items()}


async def _extents_of(topic: str) -> dict[int, Extent]:
    async with event_reader(current_settings().kafka, topic) as reader:
        tps = reader.assignment()
        starts, ends = await reader.beginning_offsets(tps), await reader.end_offsets(tps)
        return {tp.partition: Extent(starts[tp], ends[tp]) for tp in tps}


async def _workers() -> int:
    """Return the number of workers, according to Kafka."""
    admin = AIOKafkaAdminClient(bootstrap_servers=current_settings().kafka)
    async with _answers():
        try:
            await admin.start()
            found = await admin.describe_consumer_groups([CONSUMER_GROUP])
            return sum(len(group[5]) for response in found for group in response.groups)
        finally:
            await admin.close()


@asynccontextmanager
async def _answers() -> AsyncIterator[None]:
    """Run queries to Kafka in the block.

    Raises:
        RebuildError: Kafka does not answer.
    """
    settings = current_settings()
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            yield
    except (TimeoutError, KafkaError, OSError) as error:
        raise RebuildError(
            f"no Kafka answers at {settings.kafka}; start Mercuria with `mercuria up --data-dir {settings.data_dir}`,"
            " or point MERCURIA_KAFKA at it"
        ) from error
