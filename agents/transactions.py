"""The stage that keeps PostgreSQL's wallets, their events and transactions, from the event topic.

Where it is, PostgreSQL says itself (`agents.projection`); what Faust commits only counts while PostgreSQL is away.
"""

import asyncio
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any

from faust.types import TP
from mode.utils.logging import get_logger

from mercuria.adapters.positions import Place, Positions
from mercuria.adapters.postgres import DatabaseUnavailable
from mercuria.adapters.projections import STAGE, Projections
from mercuria.agents.projection import Projection
from mercuria.agents.watchdog import LOOK_EVERY_S, Progress, StandstillError, Watchdog
from mercuria.app import app, database, settings
from mercuria.streams.crash import crash_on_bug
from mercuria.streams.schema import BatchSchema
from mercuria.topics import WALLET_EVENTS

RESUME_WITHIN_S = 1.5
"""PostgreSQL is asked for so long where to go on; deciding commands waits for that."""
COMPARE_EVERY_S = 2.0

log = get_logger(__name__)

wallet_events = app.topic(
    WALLET_EVENTS,
    # A fetch in one piece: pieces for which there is no room would hold up all partitions, those of commands included.
    schema=BatchSchema(cut=False),
    partitions=settings.partitions,
)
positions = Positions(database, STAGE)


async def seek(partition: int, offset: int) -> None:
    """Let reading of a partition go back to an offset."""
    log.warning("Partition %d of the event topic is read again from %d on.", partition, offset)
    try:
        await app.consumer.seek_wait({TP(WALLET_EVENTS, partition): offset})
    except Exception:
        # The partition has just been taken away, or Kafka is. A gap that is still there is noticed again.
        log.info("Partition %d of the event topic cannot be read again now.", partition, exc_info=True)


projection = Projection(Projections(settings.database), seek)


@app.agent(wallet_events, name="transactions", isolated_partitions=True)
async def transactions(stream: Any) -> None:
    """Keeps wallets, what happened to them, and transactions in PostgreSQL."""
    partition: int | None = None
    try:
        async for event in stream.events():
            partition = event.message.partition
            await projection.take(partition, event.value)
    finally:
        if partition is not None:
            projection.forget(partition)


@app.task  # type: ignore[untyped-decorator]
async def project() -> None:
    """Write what the agent takes."""
    with crash_on_bug():
        await projection.run()


async def resume_at(partitions: Collection[int]) -> Mapping[int, int]:
    """Return the offsets to go on with; none while PostgreSQL does not say where the partitions are."""
    try:
        async with asyncio.timeout(RESUME_WITHIN_S):
            places = await positions.places()
    except (DatabaseUnavailable, TimeoutError):
        return {}
    return {number: places.get(number, Place()).read + 1 for number in partitions}


app.positions[WALLET_EVENTS] = resume_at


lacking: dict[int, int] = {}
"""What PostgreSQL lacked at the last look, by partition the first offset."""


@app.timer(interval=COMPARE_EVERY_S)  # type: ignore[untyped-decorator]
async def compare() -> None:
    """Read again what was read and is not in PostgreSQL, nor waits to be written.

    It was read on from where Faust had committed, while PostgreSQL was away; or the tables have been emptied.
    """
    before = dict(lacking)
    lacking.clear()
    if app.rebalancing or app.in_recovery or not app.tables.actives_ready or projection.is_away:
        return
    with suppress(DatabaseUnavailable):
        lacking.update(lacks(await read_offsets(), await positions.places()))
    for partition, offset in lacking.items() & before.items():
        await seek(partition, offset)


def lacks(read: Mapping[int, int], places: Mapping[int, Place]) -> dict[int, int]:
    """Return where PostgreSQL lacks something before the offsets that are to be read next, and from where on."""
    follows = {number: places.get(number, Place()).read + 1 for number in read}
    return {
        number: offset
        for number, offset in follows.items()
        if offset < read[number] and not projection.is_waiting(number)
    }


async def read_offsets() -> dict[int, int]:
    """Return what is to be read next in the partitions of this worker; nothing while Kafka does not tell."""
    mine = [tp for tp in app.consumer.assignment() if tp.topic == WALLET_EVENTS]
    try:
        return {tp.partition: await app.consumer.position(tp) or 0 for tp in mine}
    except Exception:
        # Kafka is away, or the partitions have just been taken.
        return {}


watchdog = Watchdog()


@app.timer(interval=LOOK_EVERY_S)  # type: ignore[untyped-decorator]
async def watch() -> None:
    """End the process when partitions are not read on although there is something to read."""
    if app.rebalancing or app.in_recovery or not app.tables.actives_ready:
        watchdog.look({}, time.monotonic())
        return
    with crash_on_bug():
        still = watchdog.look(await progress(), time.monotonic())
        if still:
            raise StandstillError(f"Partitions {still} of the event topic have not been read for too long.")


async def progress() -> dict[int, Progress]:
    """Return how far the partitions of this worker are; nothing while Kafka does not tell.

    Where something waits to be written, PostgreSQL is waited for, which may be away for long.
    """
    read = {
        number: offset
        for number, offset in (await read_offsets()).items()
        if not projection.is_waiting(number)
    }
    try:
        ends = await app.consumer.highwaters(*(TP(WALLET_EVENTS, number) for number in read))
    except Exception:
        return {}
    known = projection.places
    return {
        tp.partition: Progress(known.get(tp.partition, Place()).read, read[tp.partition], end, False)
        for tp, end in ends.items()
    }
