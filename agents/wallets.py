"""The wallet agent: decides the commands of each partition, in order, each with exactly one effect.

The order of the steps makes a crash at any moment harmless (docs/architecture.md, "Six steps of a batch"):
first the outputs, then the changelog with the position, then RocksDB. While the last two are written for one
batch, the next batch is decided.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property, partial
from time import perf_counter
from typing import Any

from mode.utils.logging import get_logger

from mercuria.agents import batch_metrics
from mercuria.agents.batch import Batch, Installation
from mercuria.agents.incoming import command_ids, command_in, wallet_ids
from mercuria.agents.throttle import Throttle
from mercuria.kafka.batch_table import Row
from mercuria.kafka.crash import RecordError, crash_on_bug
from mercuria.kafka.partitioning import Partitioner
from mercuria.kafka.record_tracing import RecordTracing, ids_of_command
from mercuria.kafka.schema import BatchSchema
from mercuria.kafka.sealing import Seal
from mercuria.kafka.skips import Skipped
from mercuria.kafka.transport import MAX_BATCH_RECORDS, Fetched
from mercuria.observability import metrics
from mercuria.redis.announcer import Announcement
from mercuria.tables.receipts import ReceiptsTable, segment_row
from mercuria.tables.registration import Tables
from mercuria.topics import WALLET_COMMANDS, WALLET_DEAD_LETTERS, WALLET_EVENTS
from mercuria.worker import App

NAME = "wallets"

log = get_logger(__name__)


def register(app: App, tables: Tables) -> None:
    """Add the wallet agent to an app."""
    agent = WalletAgent(app, tables)
    commands = app.topic(WALLET_COMMANDS, schema=BatchSchema(), partitions=app.settings.partitions)
    app.agent(commands, name=NAME, isolated_partitions=True)(agent.run)
    app.worked_through[NAME] = agent.decided


class GapError(Exception):
    """Records are missing between the decided ones and those that arrived."""


class WalletAgent:
    """Decides deposits, withdrawals, transfers and the life of wallets."""

    def __init__(self, app: App, tables: Tables) -> None:
        self.app = app
        self.balances, self.receipts, _ = tables
        self._throttle = Throttle()
        self._tracing = RecordTracing(
            NAME, "decide", WALLET_COMMANDS, "A command is decided.", ids_of_command
        )

    async def run(self, stream: Any) -> None:
        """Decides deposits, withdrawals, transfers and the life of wallets."""
        async for event in stream.events():
            with crash_on_bug():
                await self.process(event.message.partition, event.value, partial(queued, stream))

    async def process(
        self, partition: int, records: Fetched, more: Callable[[], Iterable[Fetched]] = list
    ) -> None:
        """Decide the undecided `records`, and records that have arrived since, up to a whole batch.

        A batch costs the same for one command as for fifty. Records that are decided early are skipped when
        their turn comes.

        Raises:
            GapError: records before these did not arrive.
        """
        await self.app.know_skips()
        async with self.balances.lock(partition):
            waiting = self._undecided(partition, records)
            if not waiting:
                return
            await self._throttle.begin(partition)
            waiting += following(records, more(), MAX_BATCH_RECORDS - len(waiting))
            while waiting:
                waiting = await self._process_batch(partition, waiting)
            self._throttle.end(partition)

    def _undecided(self, partition: int, records: Fetched) -> list[Any]:
        decided = self.balances.position(partition).offset
        if records.start > decided + 1:
            raise GapError(
                f"Partition {partition} goes on at {records.start}, and is decided up to {decided}."
            )
        return [record for record in records if record.offset > decided]

    async def _process_batch(self, partition: int, waiting: list[Any]) -> list[Any]:
        """Decide, send and persist one batch of records, and return those that remain."""
        await self.app.locks.prove(partition)
        began_s = perf_counter()
        try:
            batch = self.decide(partition, waiting)
        except Exception as error:
            raise RecordError(WALLET_COMMANDS, partition, self._culprit(partition, waiting)) from error
        if batch.offset < waiting[0].offset:
            await self.balances.kept(partition)
            return waiting
        decided_s = perf_counter()
        since_ms = waiting[0].timestamp
        kept_since_ms = self.balances.kept_since_ms(partition, since_ms)
        receipt_rows = receipt_rows_of(self.receipts, batch, waiting[0], kept_since_ms)
        receipts_offset = await self.publish(batch, receipt_rows)
        metrics.decide_s.observe(decided_s - began_s)
        metrics.append_s.observe(perf_counter() - decided_s)
        batch_metrics.count(batch)
        self.receipts.write(partition, receipt_rows, receipts_offset)
        await self.balances.keep(partition, batch.wallets, batch.position, since_ms)
        self._report(batch, waiting, perf_counter() - began_s)
        return [record for record in waiting if record.offset > batch.offset]

    def decide(self, partition: int, records: Sequence[Any]) -> Batch:
        """Decide as many records, from the first one on, as fit into one batch.

        The batch takes no record if the first one must wait until the previous batch is persisted.
        """
        skips = self.app.skips.of(WALLET_COMMANDS, partition)
        commands = [command_in(record, skips) for record in records]
        # The defect of a skipped record may lie in its wallet, so that wallet is not read.
        named = wallet_ids([each for each in commands if type(each) is not Skipped])
        batch = Batch(
            self._installation,
            partition,
            self.balances.position(partition),
            self.balances.wallets(partition, named),
            self.receipts.find(partition, command_ids(commands)),
            is_behind=self.balances.is_keeping(partition),
        )
        for record, command in zip(records, commands, strict=True):
            if not batch.take(record, command) or batch.is_full:
                break
        return batch

    async def publish(self, batch: Batch, receipt_rows: list[Row]) -> int:
        """Send all outputs of a batch, and wait until Kafka has acknowledged them.

        Returns:
            The offset of the last receipt row in its changelog.
        """
        enqueue, source, outputs = self.app.batch_producer.enqueue, batch.partition, batch.outputs
        sent = [enqueue(source, WALLET_COMMANDS, target, legs) for target, legs in outputs.legs.items()]
        sent.append(enqueue(source, WALLET_EVENTS, source, outputs.events))
        sent.append(enqueue(source, WALLET_DEAD_LETTERS, source, outputs.dead_letters))
        receipts_offset = await self.receipts.append(source, receipt_rows)
        for each in sent:
            await each
        return receipts_offset

    def decided(self) -> dict[int, int]:
        """Return, by partition, the next offset to decide, once the partition's table is up to date."""
        if self.app.rebalancing or self.app.in_recovery:
            return {}
        return {
            each: self.balances.position(each).offset + 1
            for each in self.app.own_partitions()
            if self.balances.store.is_open(each)
        }

    @cached_property
    def _installation(self) -> Installation:
        """The settings that all workers share. The key is read when the first command arrives."""
        settings = self.app.settings
        return Installation(
            Partitioner(settings.partitions), self.receipts.lifetime_ms, Seal(settings.leg_key())
        )

    def _culprit(self, partition: int, records: Sequence[Any]) -> int:
        """Return the offset of the first record that makes deciding fail."""
        good, bad = 0, len(records)
        while bad - good > 1:
            middle = (good + bad) // 2
            try:
                self.decide(partition, records[:middle])
                good = middle
            except Exception:
                bad = middle
        return int(records[bad - 1].offset)

    def _report(self, batch: Batch, records: list[Any], took_s: float) -> None:
        """Announce the results of a batch that is final, and log its records."""
        self.app.announcer.announce(
            Announcement(batch.partition, list(batch.wallets.values()), batch.outputs.replies)
        )
        for skip in batch.skipped.values():
            log.warning("A command is skipped.", extra=skip.facts)
        done = (each for each in records if each.offset <= batch.offset and each.offset not in batch.skipped)
        self._tracing.done(batch.partition, done, took_s)


def queued(stream: Any) -> list[Fetched]:
    """Return the fetches in an agent's queue behind the one that the agent has taken."""
    return [event.value for event in stream.channel.queue._queue]


def following(records: Fetched, more: Iterable[Fetched], room: int) -> list[Any]:
    """Return the records of the fetches that directly follow `records`, as far as there is room."""
    end, found = records[-1].offset + 1, list[Any]()
    for fetched in more:
        if fetched.start != end or len(found) + len(fetched) > room:
            break
        found += fetched
        end = fetched[-1].offset + 1
    return found


def receipt_rows_of(receipts: ReceiptsTable, batch: Batch, first: Any, since_ms: int) -> list[Row]:
    """Return the receipt rows of a batch whose first record is `first`, and those that expired at `since_ms`.

    `since_ms` is the time of the first record that a crash would have decided again: that record may depend
    on receipts that expire later.
    """
    rows = receipts.expired(batch.partition, since_ms)
    if batch.receipts:
        rows.append(segment_row(first.offset, batch.receipts))
    return rows
