"""Replacements in aiokafka's fetcher for parsing fetched records, for workers and tools alike.

Importing this module patches aiokafka's fetcher, which has no other hook for a different record parser. After
that, a corrupt record does not end a reader (`kafka.record_batches`), and a reader of batches knows the first
offset of each batch.
"""

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, cast
from weakref import WeakKeyDictionary

from aiokafka import TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException

from mercuria.kafka.record_batches import RecordBatch, RecordBatches

READ_COMMITTED = "read_committed"
"""The isolation level of all readers of Mercuria's topics: they skip records of aborted transactions."""

TAKEN_RECORDS, TAKEN_BYTES = 20_000, 16 * 1024 * 1024
"""About how much of a fetch is taken at a time. Packed records may expand to a thousand times their size."""


def read_committed(consumer: Any) -> Any:
    """Make a consumer that has not started skip the records of aborted transactions."""
    consumer._isolation_level = READ_COMMITTED
    return consumer


class Fetched(list[Any]):
    """Consecutive records of one partition: all records from the offset `start` to the last one."""

    def __init__(self, records: Iterable[Any], start: int) -> None:
        super().__init__(records)
        self.start = start


class ParsedRecords(fetcher.PartitionRecords):  # type: ignore[misc]  # aiokafka is untyped
    """The records of a fetch for one partition. Those of a batched topic are taken many at once, as parsed.

    aiokafka returns single `ConsumerRecord`s. That costs 3 µs a record, which is more than parsing it.
    """

    batched_topics: ClassVar[set[str]] = set()
    next_fetch_offset: int
    is_used_up = False

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._pieces = self._read_pieces()

    @property
    def is_batched(self) -> bool:
        return self._tp.topic in self.batched_topics

    def take(self) -> list[Any]:
        """Return the next records, up to the memory limit. `is_used_up` shows whether they were the last."""
        taken, size = list[Any](), 0
        for piece, piece_bytes in self._pieces:
            taken += piece
            size += piece_bytes
            if len(taken) >= TAKEN_RECORDS or size >= TAKEN_BYTES:
                return taken
        self.is_used_up = True
        return taken

    def _read_pieces(self) -> Iterator[tuple[list[Any], int]]:
        """Yield lists of records, each with its approximate size in bytes."""
        for batch in self._visible_batches():
            is_ours = isinstance(batch, RecordBatch)
            for read in batch.pieces() if is_ours else [list(batch)]:
                piece = read
                if piece and piece[0].offset < self.next_fetch_offset:
                    piece = [record for record in piece if record.offset >= self.next_fetch_offset]
                if piece:
                    self.next_fetch_offset = piece[-1].offset + 1
                    yield piece, len(piece) * (batch.record_bytes if is_ours else 0)
            self.next_fetch_offset = batch.next_offset

    def _visible_batches(self) -> Iterator[Any]:
        """Yield the batches with records, without those of aborted transactions if the reader skips these."""
        is_committed_only = self._isolation_level == fetcher.READ_COMMITTED
        while self._records.has_next():
            batch = self._records.next_batch()
            if self._check_crcs and not batch.validate_crc():
                raise CorruptRecordException(f"Invalid CRC - {self._tp}")
            is_hidden = batch.is_control_batch
            if is_committed_only and batch.producer_id is not None:
                self._consume_aborted_up_to(batch.base_offset)
                if batch.is_control_batch and self._contains_abort_marker(batch):
                    self._aborted_producers.discard(batch.producer_id)
                is_hidden |= batch.is_transactional and batch.producer_id in self._aborted_producers
            if is_hidden:
                self.next_fetch_offset = batch.next_offset
            else:
                yield batch


class FetchResult(fetcher.FetchResult):  # type: ignore[misc]  # aiokafka is untyped
    """The result of a fetch for one partition, including its first offset.

    Faust can lose a batch if a rebalance happens between two polls. An agent detects that by comparing the
    start of a batch with the end of the previous one. Record offsets alone do not suffice: transactions leave
    gaps in them.
    """

    # By the assignment of a consumer: the range of offsets after the last record that holds nothing to read.
    # It consists of transaction markers, or of records of an aborted transaction.
    _blank: ClassVar[WeakKeyDictionary[Any, dict[TopicPartition, tuple[int, int]]]] = WeakKeyDictionary()

    def getall(self, max_records: int | None = None) -> list[Any]:
        """Return the next records. They are all records of the partition from their `start` on."""
        parsed: ParsedRecords | None = self._partition_records
        if parsed is None:  # The records were taken, or dropped because of a seek.
            return []
        start = parsed.next_fetch_offset
        blank = self._blank.setdefault(self._assignment, {})
        since, until = blank.pop(self._topic_partition, (start, start))
        records = Fetched(self._take(parsed, max_records), since if until == start else start)
        end = records[-1].offset + 1 if records else records.start
        if end < parsed.next_fetch_offset:
            blank[self._topic_partition] = (end, parsed.next_fetch_offset)
        return records

    def _take(self, parsed: ParsedRecords, max_records: int | None) -> list[Any]:
        if not parsed.is_batched or max_records is not None:
            return cast(list[Any], super().getall(max_records))
        if not self.check_assignment(self._topic_partition):
            return []
        taken = parsed.take()
        self._update_position()
        if parsed.is_used_up:
            self._partition_records = None
        return taken


fetcher.MemoryRecords = RecordBatches
fetcher.PartitionRecords = ParsedRecords
fetcher.FetchResult = FetchResult
