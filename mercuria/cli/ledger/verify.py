"""`mercuria ledger verify`: walks all chains of the ledger, in PostgreSQL and in Kafka.

The topic is read before and after PostgreSQL: entries are committed before they are published, and leave the
outbox only when Kafka has them. An entry that the topic had before must therefore be in PostgreSQL. An entry
of PostgreSQL that is afterwards neither published nor in the outbox was not written by Mercuria.
"""

import asyncio
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click
import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from msgspec import Struct
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mercuria.cli.data_dir import with_data_dir
from mercuria.cli.failures import EXIT_NO, say, sentence_of
from mercuria.cli.ledger import ledger
from mercuria.cli.ledger.chain import SHOWN, Chain, Findings, Row
from mercuria.cli.ledger.heads import Head, Heads, read_heads, write_heads
from mercuria.cli.options import examples, json_option
from mercuria.cli.printable import printable
from mercuria.cli.showing import show_json
from mercuria.config import current_settings
from mercuria.domain.ledger import Entry
from mercuria.kafka.client import event_reader
from mercuria.kafka.cloudevents import read_numbered
from mercuria.projections.ledger.snapshot import Books, books
from mercuria.topics import LEDGER_EVENTS

HEADS_FILE = "ledger-verified.json"
KAFKA_WITHIN_S = 30.0


class Report(Struct):
    """The findings. Sums are in minor units."""

    entries: int
    chains: int
    debits: dict[str, int]
    credits: dict[str, int]
    waiting_to_be_published: int
    findings: int
    sentences: list[str]


@ledger.command("verify", epilog=examples("mercuria ledger verify", "mercuria ledger verify --resume --json"))
@with_data_dir
@click.option("--resume", is_flag=True, help="Go on where the last run ended that found nothing wrong.")
@json_option
def verify(resume: bool, as_json: bool) -> None:
    """Prove that nobody has changed the ledger.

    Checks every entry's hash, the order of each chain, that each debit has its credit, that entries and completed
    transactions belong together, and that Kafka holds the same entries: whoever has all rights on PostgreSQL cannot
    change that. The exit code is 1 where anything is wrong, and 2 where it cannot be checked.
    """
    heads_file = current_settings().data_dir / HEADS_FILE
    cluster = asyncio.run(_cluster())
    heads = read_heads(heads_file, cluster) if resume else {}
    report, verified = asyncio.run(_verify(heads))
    _show(report, as_json)
    if report.findings:
        sys.exit(EXIT_NO)
    try:
        write_heads(heads_file, cluster, verified)
    except OSError as error:
        say(f"the next --resume cannot go on from here: {sentence_of(error)}")


async def _cluster() -> str:
    """Return the id of the Kafka cluster."""
    admin = AIOKafkaAdminClient(bootstrap_servers=current_settings().kafka)
    try:
        async with asyncio.timeout(KAFKA_WITHIN_S):
            await admin.start()
            return str((await admin.describe_cluster()).get("cluster_id"))
    finally:
        await admin.close()


async def _verify(heads: Heads) -> tuple[Report, Heads]:
    settings = current_settings()
    findings = Findings()
    async with asyncio.timeout(KAFKA_WITHIN_S):
        reader = event_reader(settings.kafka, LEDGER_EVENTS)
        consumer = await reader.__aenter__()
    try:
        before = await _ends(consumer)
        with books(settings.database) as found:
            walk = _Walk(consumer, found, findings, heads, before)
            report, verified = await walk.run()
    finally:
        await reader.__aexit__(None, None, None)
    return report, verified


async def _ends(consumer: AIOKafkaConsumer) -> dict[int, int]:
    ends = await consumer.end_offsets(consumer.assignment())
    return {tp.partition: end for tp, end in ends.items()}


class _Topic:
    """The events of one partition, by number, read on demand."""

    def __init__(
        self, consumer: AIOKafkaConsumer, partition: int, head: Head, before: int, findings: Findings
    ) -> None:
        self.hashes: dict[int, bytes] = {}
        self.promised = head.sequence
        self._before = before
        self._offsets: dict[int, int] = {}
        self.last = head.sequence
        self.offset = head.offset
        self._consumer = consumer
        self._partition = partition
        self._findings = findings
        self._skipped: dict[int, str] = {}

    async def read_to(self, sequence: int, end: int) -> None:
        """Read up to the event `sequence`, or to before the record `end`."""
        tp = TopicPartition(LEDGER_EVENTS, self._partition)
        while self.last < sequence and self.offset < end:
            async with asyncio.timeout(KAFKA_WITHIN_S):
                records = (await self._consumer.getmany(tp, timeout_ms=200, max_records=20_000)).get(tp, [])
            for record in records:
                self._take(read_numbered(record.value)[0], record.offset)
            self.offset = records[-1].offset + 1 if records else await self._consumer.position(tp)

    def resume_offset(self) -> int:
        """Return the offset of the first event that has not been compared yet, or of the next record."""
        return min(self._offsets.values(), default=self.offset)

    def _take(self, event: Any, offset: int) -> None:
        assert isinstance(event, Entry), "the ledger topic holds entries"
        if event.sequence > self.last:
            self._offsets[event.sequence] = offset
            if offset < self._before:
                # PostgreSQL was read after this record was written; it may lack later entries.
                self.promised = event.sequence
        if event.sequence == self.last + 1:
            self.hashes[event.sequence] = bytes.fromhex(event.hash)
            self.last = event.sequence
        elif event.sequence > self.last:
            self._findings.add(
                f"Entry {self._partition}-{event.sequence} of the topic comes after {self.last}: there is a gap."
            )
            self.last = event.sequence
            self.hashes[event.sequence] = bytes.fromhex(event.hash)
        elif self.hashes.get(event.sequence, bytes.fromhex(event.hash)).hex() != event.hash:
            self._findings.add(
                f"Entry {self._partition}-{event.sequence} came again in the topic, and is another one."
            )

    def drop(self, up_to: int) -> None:
        """Drop the hashes that have been compared."""
        for sequence in [number for number in self.hashes if number <= up_to]:
            del self.hashes[sequence]
            del self._offsets[sequence]


class _Walk:
    def __init__(
        self,
        consumer: AIOKafkaConsumer,
        found: Books,
        findings: Findings,
        heads: Heads,
        before: dict[int, int],
    ) -> None:
        self._consumer = consumer
        self._books = found
        self._findings = findings
        self._heads = heads
        self._before = before
        self._waiting = 0

    async def run(self) -> tuple[Report, Heads]:
        """Walk all chains, and then check that their entries belong to transactions."""
        counted = self._numbers("chains")
        outbox = self._numbers("outbox")
        last = self._numbers("last_entries")
        debits, credits = defaultdict[str, int](int), defaultdict[str, int](int)
        verified: Heads = {}
        entries = 0
        with _progress(sum(last.values())) as advance:
            for partition in sorted(self._before.keys() | last.keys() | counted.keys()):
                head = self._heads.get(partition, Head())
                chain, offset = await self._chain(partition, head, outbox.get(partition, 0), advance)
                entries += chain.sequence - head.sequence
                for currency, amount in chain.debits.items():
                    debits[currency] += amount
                for currency, amount in chain.credits.items():
                    credits[currency] += amount
                if chain.sequence != counted.get(partition, 0):
                    self._findings.add(
                        f"Entry {partition}-{chain.sequence + 1}: the chain ends before it, and the ledger's position"
                        f" says {counted.get(partition, 0)}."
                    )
                verified[partition] = Head(chain.sequence, chain.head.hex(), offset)
        for currency in debits.keys() | credits.keys():
            if debits[currency] != credits[currency]:
                self._findings.add(
                    f"{currency}: debits are {debits[currency]}, and credits {credits[currency]}."
                )
        self._check_transactions()
        return (
            Report(
                entries=entries,
                chains=len(verified),
                debits=dict(sorted(debits.items())),
                credits=dict(sorted(credits.items())),
                waiting_to_be_published=self._waiting,
                findings=self._findings.count,
                sentences=self._findings.sentences,
            ),
            verified,
        )

    def _numbers(self, name: str) -> dict[int, int]:
        return {int(partition): int(number) for partition, number in self._books.all(name)}

    async def _chain(
        self, partition: int, head: Head, waits_to: int, advance: Callable[[int], None]
    ) -> tuple[Chain, int]:
        chain = Chain(partition, self._findings, head.sequence, bytes.fromhex(head.hash))
        topic = _Topic(self._consumer, partition, head, self._before.get(partition, 0), self._findings)
        tp = TopicPartition(LEDGER_EVENTS, partition)
        if partition in self._before:
            self._consumer.seek(tp, head.offset)
        self._check_head(partition, head)
        end = self._before.get(partition, 0)
        parameters = {"partition": partition, "after": head.sequence}
        for piece in self._books.pieces("chain", parameters):
            rows = [Row._make((*row[:-1], bytes(row[-1]))) for row in piece]
            await topic.read_to(rows[-1].sequence, end)
            if topic.last < rows[-1].sequence:
                # The entry was published while PostgreSQL was read, or is not published yet.
                end = (await _ends(self._consumer)).get(partition, 0)
                await topic.read_to(rows[-1].sequence, end)
            chain.take(rows, topic.hashes)
            topic.drop(rows[-1].sequence)
            advance(len(rows))
        chain.end()
        await topic.read_to(2**63, self._before.get(partition, 0))
        self._compare_ends(chain, topic, waits_to)
        return chain, topic.resume_offset()

    def _check_head(self, partition: int, head: Head) -> None:
        if head.sequence:
            rows = next(
                self._books.pieces("chain", {"partition": partition, "after": head.sequence - 1}), [None]
            )
            first = rows[0]
            if first is None or first[0] != head.sequence or bytes(first[-1]).hex() != head.hash:
                self._findings.add(
                    f"Entry {partition}-{head.sequence} was verified before, and is not the same any more."
                )

    def _compare_ends(self, chain: Chain, topic: _Topic, waits_to: int) -> None:
        """Report entries of the topic that PostgreSQL lacks, and unpublished entries of PostgreSQL."""
        lacking = [number for number in topic.hashes if chain.sequence < number <= topic.promised]
        for number in sorted(lacking):
            self._findings.add(
                f"Entry {chain.partition}-{number}: it is missing in PostgreSQL, and the ledger topic has it."
            )
        if chain.sequence > topic.last:
            if chain.sequence <= waits_to:
                self._waiting += chain.sequence - topic.last
            else:
                self._findings.add(
                    f"Entry {chain.partition}-{topic.last + 1}: it is in PostgreSQL, and neither in the ledger topic"
                    " nor on its way there."
                )

    def _check_transactions(self) -> None:
        for id_, entries, transactions in self._books.all("wrong_transactions", limit=SHOWN):
            # The ledger may lag: the entries of a completed transaction are written a moment later.
            if entries or not self._is_behind():
                self._findings.add(
                    f"Transaction {id_} has {entries} entries, and was completed {transactions} times."
                )

    def _is_behind(self) -> bool:
        rows = self._books.all("lag")
        return any(sent > read for sent, read in rows)


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """Show the number of walked entries, on a terminal."""
    columns = TextColumn("entries"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("entries", total=total)
        yield lambda count: progress.advance(bar, count)


def _show(report: Report, as_json: bool) -> None:
    if as_json:
        show_json(msgspec.to_builtins(report))
        return
    for sentence in report.sentences:
        click.echo(printable(sentence))
    if report.findings > len(report.sentences):
        click.echo(f"… and {report.findings - len(report.sentences):,} more.")
    what = f"{report.entries:,} entries in {report.chains} chains"
    click.echo(f"{what}: {report.findings:,} findings." if report.findings else f"{what} are right.")
