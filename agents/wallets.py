"""The wallet agent: decides the commands of each partition, in order, with exactly one effect each.

The order of the steps is what makes a crash at any moment harmless (docs/architecture.md): outputs first, then the
changelog with the position, then RocksDB, then the acknowledgement.
"""

import asyncio
from collections.abc import Sequence
from functools import cache
from typing import Any

from mercuria.agents.batch import Batch, Installation, command_ids, wallet_ids
from mercuria.app import app, settings, wallet_commands
from mercuria.domain.commands import AnyCommand
from mercuria.domain.parsing import Unreadable, read_command
from mercuria.streams.announcer import Announcement
from mercuria.streams.batch_table import Row
from mercuria.streams.crash import crash_on_bug
from mercuria.streams.routing import Homes
from mercuria.streams.seal import Seal
from mercuria.streams.transport import Fetched
from mercuria.tables.balances import balances, rows_of
from mercuria.tables.receipts import receipts, segment_row
from mercuria.topics import WALLET_COMMANDS, WALLET_DEAD_LETTERS, WALLET_EVENTS


@app.agent(wallet_commands, name="wallets", isolated_partitions=True)
async def wallets(stream: Any) -> None:
    """Decides deposits, withdrawals, transfers and the life of wallets."""
    async for event in stream.events():
        with crash_on_bug():
            await process(event.message.partition, event.value)


@cache
def installation() -> Installation:
    """Return what this worker shares with all others. The key is read when the first command comes."""
    return Installation(Homes(settings.partitions), receipts.lifetime_ms, Seal(settings.leg_key()))


class GapError(Exception):
    """Records are missing between those that are decided and those that came."""


async def process(partition: int, records: Fetched) -> None:
    """Decide those of `records` that are not decided yet.

    Raises:
        GapError: some before them did not come.
    """
    async with balances.lock(partition):
        decided = balances.position(partition).offset
        if records.start > decided + 1:
            raise GapError(
                f"Partition {partition} goes on at {records.start}, and is decided up to {decided}."
            )
        waiting = [record for record in records if record.offset > decided]
        while waiting:
            await app.locks.prove(partition)
            batch = decide(partition, waiting)
            receipt_rows = receipt_rows_of(batch, waiting[0])
            receipts_offset = await publish(batch, receipt_rows)
            wallet_rows = rows_of(batch.wallets.values(), batch.position)
            wallets_offset = await balances.append(partition, wallet_rows)
            receipts.write(partition, receipt_rows, receipts_offset)
            balances.apply(partition, batch.wallets, batch.position, wallet_rows, wallets_offset)
            app.announcer.announce(Announcement(partition, list(batch.wallets.values()), batch.replies))
            waiting = [record for record in waiting if record.offset > batch.offset]


def decide(partition: int, records: Sequence[Any]) -> Batch:
    """Decide records, from the first on, as many as fit into one batch."""
    commands: list[AnyCommand | Unreadable] = [read_command(record.value) for record in records]
    batch = Batch(
        installation(),
        partition,
        balances.position(partition),
        balances.wallets(partition, wallet_ids(commands)),
        receipts.find(partition, command_ids(commands)),
    )
    for record, command in zip(records, commands, strict=True):
        if not batch.take(record, command) or batch.is_full:
            break
    return batch


def receipt_rows_of(batch: Batch, first: Any) -> list[Row]:
    """Return the rows of a batch's receipts, and of those that had expired when its `first` record came.

    Not of those that expire within the batch: it may lean on them, also when it is decided again after a crash.
    """
    rows = receipts.expired(batch.partition, first.timestamp)
    if batch.receipts:
        rows.append(segment_row(first.offset, batch.receipts))
    return rows


async def publish(batch: Batch, receipt_rows: list[Row]) -> int:
    """Send all that a batch says, and wait until Kafka has acknowledged it.

    Returns:
        The offset of the last receipt row in its changelog.
    """
    enqueue = app.batch_producer.enqueue
    receipts_offset, *_ = await asyncio.gather(
        receipts.append(batch.partition, receipt_rows),
        enqueue(batch.partition, WALLET_EVENTS, batch.partition, batch.events),
        enqueue(batch.partition, WALLET_DEAD_LETTERS, batch.partition, batch.dead_letters),
        *(enqueue(batch.partition, WALLET_COMMANDS, home, legs) for home, legs in batch.legs.items()),
    )
    return receipts_offset
