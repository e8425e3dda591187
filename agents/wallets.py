"""The wallet agent: decides the commands of each partition, in order, each with exactly one effect.

The order of the steps makes a crash at any moment harmless (docs/architecture.md, "Six steps of a batch"):
first the outputs, then the changelog with the position, then RocksDB. While the last two are written for one
batch, the next batch is decided.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache, partial
from time import perf_counter
from typing import Any

from mode.utils.logging import get_logger

from mercuria.agents import tally
from mercuria.agents.batch import Batch, Installation, command_ids, wallet_ids
from mercuria.agents.pace import Pace
from mercuria.agents.steps import Step, ids_of_command
from mercuria.app import app, balances, receipts, settings, wallet_commands
from mercuria.domain.commands import AnyCommand
from mercuria.domain.parsing import Unreadable, read_command
from mercuria.domain.rejections import DETAILS, Code
from mercuria.kafka.batch_table import Row
from mercuria.kafka.crash import RecordError, crash_on_bug
from mercuria.kafka.partitioning import Homes
from mercuria.kafka.record_batches import UnreadableRecord
from mercuria.kafka.sealing import Seal
from mercuria.kafka.skips import NONE, Skip, Skipped
from mercuria.kafka.transport import MAX_BATCH_RECORDS, Fetched
from mercuria.observability import metrics
from mercuria.redis.announcer import Announcement
from mercuria.tables.receipts import segment_row
from mercuria.topics import WALLET_COMMANDS, WALLET_DEAD_LETTERS, WALLET_EVENTS

log = get_logger(__name__)


@app.agent(wallet_commands, name="wallets", isolated_partitions=True)
async def wallets(stream: Any) -> None:
    """Decides deposits, withdrawals, transfers and the life of wallets."""
    async for event in stream.events():
        with crash_on_bug():
            await process(event.message.partition, event.value, partial(queued, stream))


@cache
def installation() -> Installation:
    """Return the settings that all workers share. The key is read when the first command arrives."""
    return Installation(Homes(settings.partitions), receipts.lifetime_ms, Seal(settings.leg_key()))


pace = Pace()
deciding = Step("wallets", "decide", WALLET_COMMANDS, "A command is decided.", ids_of_command)


def decided() -> dict[int, int]:
    """Return, by partition, the next offset to decide, once the partition's table is up to date."""
    if app.rebalancing or app.in_recovery:
        return {}
    return {
        each: balances.position(each).offset + 1
        for each in app.own_partitions()
        if balances.store.is_open(each)
    }


app.worked_through["wallets"] = decided


class GapError(Exception):
    """Records are missing between the decided ones and those that arrived."""


def queued(stream: Any) -> list[Fetched]:
    """Return the fetches in an agent's queue behind the one that the agent has taken."""
    return [event.value for event in stream.channel.queue._queue]


async def process(partition: int, records: Fetched, more: Callable[[], Iterable[Fetched]] = list) -> None:
    """Decide the undecided `records`, and records that have arrived since, up to a whole batch.

    A batch costs the same for one command as for fifty. Records that are decided early are skipped when their
    turn comes.

    Raises:
        GapError: records before these did not arrive.
    """
    await app.know_skips()
    async with balances.lock(partition):
        decided = balances.position(partition).offset
        if records.start > decided + 1:
            raise GapError(
                f"Partition {partition} goes on at {records.start}, and is decided up to {decided}."
            )
        waiting = [record for record in records if record.offset > decided]
        if not waiting:
            return
        await pace.begin(partition)
        waiting += following(records, more(), MAX_BATCH_RECORDS - len(waiting))
        while waiting:
            await app.locks.prove(partition)
            began_s = perf_counter()
            try:
                batch = decide(partition, waiting)
            except Exception as error:
                raise RecordError(WALLET_COMMANDS, partition, culprit(partition, waiting)) from error
            if batch.offset < waiting[0].offset:
                await balances.kept(partition)
                continue
            decided_s = perf_counter()
            since_ms = waiting[0].timestamp
            receipt_rows = receipt_rows_of(batch, waiting[0], balances.kept_since_ms(partition, since_ms))
            receipts_offset = await publish(batch, receipt_rows)
            metrics.decide_s.observe(decided_s - began_s)
            metrics.append_s.observe(perf_counter() - decided_s)
            tally.count(batch)
            receipts.write(partition, receipt_rows, receipts_offset)
            await balances.keep(partition, batch.wallets, batch.position, since_ms)
            app.announcer.announce(Announcement(partition, list(batch.wallets.values()), batch.replies))
            for skip in batch.skipped.values():
                log.warning("A command is skipped.", extra=skip.facts)
            done = (
                each for each in waiting if each.offset <= batch.offset and each.offset not in batch.skipped
            )
            deciding.done(partition, done, perf_counter() - began_s)
            waiting = [record for record in waiting if record.offset > batch.offset]
        pace.end(partition)


def following(records: Fetched, more: Iterable[Fetched], room: int) -> list[Any]:
    """Return the records of the fetches that directly follow `records`, as far as there is room."""
    end, found = records[-1].offset + 1, list[Any]()
    for fetched in more:
        if fetched.start != end or len(found) + len(fetched) > room:
            break
        found += fetched
        end = fetched[-1].offset + 1
    return found


def decide(partition: int, records: Sequence[Any]) -> Batch:
    """Decide as many records, from the first one on, as fit into one batch.

    The batch takes no record if the first one must wait until the previous batch is persisted.
    """
    skips = app.skips.of(WALLET_COMMANDS, partition)
    commands = [command_in(record, skips) for record in records]
    batch = Batch(
        installation(),
        partition,
        balances.position(partition),
        # The defect of a skipped record may lie in its wallet, so that wallet is not read.
        balances.wallets(partition, wallet_ids([each for each in commands if type(each) is not Skipped])),
        receipts.find(partition, command_ids(commands)),
        is_behind=balances.is_keeping(partition),
    )
    for record, command in zip(records, commands, strict=True):
        if not batch.take(record, command) or batch.is_full:
            break
    return batch


def culprit(partition: int, records: Sequence[Any]) -> int:
    """Return the offset of the first record that makes deciding fail."""
    good, bad = 0, len(records)
    while bad - good > 1:
        middle = (good + bad) // 2
        try:
            decide(partition, records[:middle])
            good = middle
        except Exception:
            bad = middle
    return int(records[bad - 1].offset)


def command_in(record: Any, skips: Mapping[int, Skip] = NONE) -> AnyCommand | Unreadable:
    """Return the command that a record holds, or the reason why it holds none."""
    if record.offset in skips:
        command: Any = None
        with suppress(Exception):
            # Reading the record may be what crashes a worker.
            command = read_command(record.value)
        return Skipped(
            code=Code.SKIPPED,
            detail=DETAILS[Code.SKIPPED],
            command_id=getattr(command, "id", None) or getattr(command, "command_id", None),
            command_type=type_of(command),
            wallet_id=getattr(command, "wallet_id", None),
            skip=skips[record.offset],
        )
    if type(record) is UnreadableRecord:
        code = Code.UNREADABLE_RECORD
        return Unreadable(code, f"{DETAILS[code][:-1]}: {record.fault}.")
    return read_command(record.value)


def type_of(command: AnyCommand | Unreadable | None) -> str | None:
    """Return the type of a command, as far as it is known."""
    if isinstance(command, Unreadable):
        return command.command_type
    if command is None:
        return None
    return str(type(command).__struct_config__.tag)


def receipt_rows_of(batch: Batch, first: Any, since_ms: int) -> list[Row]:
    """Return the receipt rows of a batch whose first record is `first`, and those that expired at `since_ms`.

    `since_ms` is the time of the first record that a crash would have decided again: that record may depend
    on receipts that expire later.
    """
    rows = receipts.expired(batch.partition, since_ms)
    if batch.receipts:
        rows.append(segment_row(first.offset, batch.receipts))
    return rows


async def publish(batch: Batch, receipt_rows: list[Row]) -> int:
    """Send all outputs of a batch, and wait until Kafka has acknowledged them.

    Returns:
        The offset of the last receipt row in its changelog.
    """
    enqueue = app.batch_producer.enqueue
    sent = [enqueue(batch.partition, WALLET_COMMANDS, home, legs) for home, legs in batch.legs.items()]
    sent.append(enqueue(batch.partition, WALLET_EVENTS, batch.partition, batch.events))
    sent.append(enqueue(batch.partition, WALLET_DEAD_LETTERS, batch.partition, batch.dead_letters))
    receipts_offset = await receipts.append(batch.partition, receipt_rows)
    for each in sent:
        await each
    return receipts_offset
