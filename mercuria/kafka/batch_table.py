"""A Faust table with batch writes: first to its changelog, then to RocksDB.

    table.read(partition, keys)                     # what RocksDB has
    offset = await table.append(partition, rows)    # to the changelog, as one record batch, acknowledged
    table.write(partition, rows, offset)            # to RocksDB, in one write batch with the changelog's offset

Faust opens, assigns and recovers it like every table. The partition is an argument: Faust's own tables take
it from the current event, which is wrong for batches of events.

A table has one writer at a time, but a suspended worker can still have a batch in flight after another worker
has taken over. The rows of such a zombie writer are never newer than those of the new owner. So recovery
keeps the newer of two rows (`supersedes`), and the new owner appends the rows that the zombie writer has
overwritten in the changelog again (`_stale`). A gap between two appends of the owner also reveals a zombie
writer: then the worker stops, and recovers.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import takewhile
from typing import Any, ClassVar, cast

import faust
import rocksdict
from faust.stores import rocksdb
from faust.types import TP, EventT

from mercuria.kafka.crash import crash_on_bug
from mercuria.kafka.producer import Producer, Record
from mercuria.kafka.record_batches import UnreadableRecord
from mercuria.kafka.schema import BatchSchema

Row = tuple[bytes, bytes | None]
"""A key and its value; None deletes."""


MAX_ROWS_BYTES = 3 * 1024 * 1024
"""The maximum size of an append, which is one record batch and succeeds or fails as a whole."""


_STALE_MARK = b"\0stale:"
"""A key prefix in RocksDB. It marks a key whose last changelog row is stale, and survives restarts."""


class ZombieWriterError(Exception):
    """Another process wrote into a changelog partition that this worker owns."""


class BatchStore(rocksdb.Store):
    """RocksDB with one database per partition, tuned for small values and a look-up for each command."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, driver="rocksdict", **kwargs)
        self._cache = rocksdict.Cache(64 * 1024 * 1024)

    def _open_for_partition(self, partition: int) -> rocksdict.Rdict:
        return rocksdict.Rdict(str(self.partition_path(partition)), options=self._options())

    def _options(self) -> rocksdict.Options:
        blocks = rocksdict.BlockBasedOptions()
        blocks.set_bloom_filter(10, False)
        blocks.set_block_cache(self._cache)
        options = rocksdict.Options(raw_mode=True)
        options.create_if_missing(True)
        options.set_block_based_table_factory(blocks)
        # Ids are random bytes: compression costs time and saves no space.
        options.set_compression_type(rocksdict.DBCompressionType.none())
        # A small buffer stays in the processor's cache, which halves the time of a write.
        options.set_write_buffer_size(4 * 1024 * 1024)
        options.set_max_write_buffer_number(2)
        # Most look-ups are for new command ids: the filter answers them without a search.
        options.set_memtable_prefix_bloom_ratio(0.1)
        options.set_memtable_whole_key_filtering(True)
        options.set_max_open_files(256)
        options.set_keep_log_file_num(2)
        return options

    def is_open(self, partition: int) -> bool:
        """Return whether the database of a partition is open, so that this worker owns the partition."""
        return partition in self._dbs


class BatchTable(faust.Table[bytes, bytes]):
    """The table. Subclasses define the meaning of its rows."""

    keeps_wal: ClassVar[bool] = True
    """Whether RocksDB has a write-ahead log. Without it, a killed worker rereads its last rows from Kafka."""

    def __init__(self, app: Any, *, name: str, partitions: int, help: str) -> None:
        super().__init__(
            app,
            name=name,
            partitions=partitions,
            help=help,
            schema=BatchSchema(),
            key_type=bytes,
            value_type=bytes,
            # Faust counts changelog messages, and here a message is a whole fetch: a standby must store it at once.
            standby_buffer_size=1,
        )
        self._locks: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._stale: dict[int, set[bytes]] = {}
        self._next_offset: dict[int, int] = {}

    # Hooks for subclasses.

    def expand(self, partition: int, row: Row) -> Iterable[Row]:
        """Return the rows of RocksDB that a row of the changelog expands to."""
        return (row,)

    def supersedes(self, key: bytes, new: bytes, old: bytes) -> bool:
        """Return whether `new` may replace `old`."""
        return True

    def forget(self, partition: int) -> None:
        """Drop the cached state of a partition, because another worker may have written to the partition."""
        self._next_offset.pop(partition, None)
        self._stale.pop(partition, None)

    # The interface for agents.

    @property
    def store(self) -> BatchStore:
        """The table's RocksDB databases."""
        return cast(BatchStore, self.data)

    def lock(self, partition: int) -> asyncio.Lock:
        """Return the lock that serializes reads, appends and writes of a partition: one batch at a time."""
        return self._locks[partition]

    def read(self, partition: int, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the values of `keys`; None for a missing one."""
        if not keys:
            return []
        return cast(list[bytes | None], self._database(partition).get(list(keys)))

    async def append(self, partition: int, rows: Sequence[Row]) -> int:
        """Append rows to the changelog as one record batch, and wait for Kafka's acknowledgement.

        Returns:
            The offset of the last row. Without rows, the offset of the last row appended before.

        Raises:
            ZombieWriterError: another process has appended since this worker's last append.
        """
        marked = self._stale_keys(partition)
        if not rows and not marked:
            return self._expected(partition) - 1
        stale = marked - {key for key, _ in rows}
        repaired = list(zip(stale, self.read(partition, list(stale)), strict=True))
        records = [Record(key, value, None) for key, value in (*repaired, *rows)]
        producer = cast(Producer, self.app.producer)
        assert _size_bytes(records) < MAX_ROWS_BYTES, "rows that belong together fit into one record batch"
        first = await producer.enqueue(partition, self.changelog_topic_name, partition, records)
        if first != self._expected(partition):
            raise ZombieWriterError(
                f"{self.changelog_topic_name} [{partition}]: appended at {first}, not {self._expected(partition)}."
            )
        self._next_offset[partition] = first + len(records)
        if marked:
            self._unmark(partition, marked)
        return first + len(records) - 1

    def write(self, partition: int, rows: Iterable[Row], offset: int) -> None:
        """Write rows to RocksDB; `offset` is that of the last row in the changelog."""
        expanded = [each for row in rows for each in self.expand(partition, row)]
        if expanded:
            self._write(partition, expanded, offset)

    # Overrides of Faust.

    def _new_store(self) -> BatchStore:
        return BatchStore("rocksdb://", self.app, self, table_name=self.name, loop=self.loop, options={})

    def _changelog_topic_name(self) -> str:
        return f"{self.app.conf.id}.{self.name}.changelog"

    async def on_rebalance(self, assigned: set[TP], revoked: set[TP], *args: Any, **kwargs: Any) -> None:
        """Drop the cached state of partitions that another worker may have owned."""
        for tp in assigned | revoked:
            self.forget(tp.partition)
        await super().on_rebalance(assigned, revoked, *args, **kwargs)

    def apply_changelog_batch(self, batch: Iterable[EventT[Any]]) -> None:
        """Write records of the changelog into RocksDB."""
        with crash_on_bug():  # Faust would log an error and continue with an incomplete table.
            for event in batch:
                self._recover(event.message.partition, event.value)

    def _recover(self, partition: int, records: Sequence[Any]) -> None:
        for record in records:
            # An unreadable record has no value, so it would count as the deletion of a row.
            if type(record) is UnreadableRecord:
                raise ValueError(f"Offset {record.offset} of the changelog cannot be read: {record.fault}.")
        self.forget(partition)
        latest: dict[bytes, bytes | None] = {}
        before = self._stale_keys(partition)
        stale = set(before)
        keys = [record.key for record in records]
        current = dict(zip(keys, self.read(partition, keys), strict=True))
        for record in records:
            old = latest.get(record.key, current[record.key])
            if old is not None and record.value is not None and not self._may_replace(record, old):
                stale.add(record.key)
                continue
            stale.discard(record.key)
            latest[record.key] = record.value
        rows = [each for row in latest.items() for each in self.expand(partition, row)]
        rows += [(_STALE_MARK + key, b"") for key in stale - before]
        rows += [(_STALE_MARK + key, None) for key in before - stale]
        self._write(partition, rows, records[-1].offset)
        self._stale[partition] = stale

    def _stale_keys(self, partition: int) -> set[bytes]:
        """Return the keys whose last row in the changelog is stale. Callers must not change the set."""
        if partition not in self._stale:
            marks = takewhile(
                lambda key: key.startswith(_STALE_MARK),
                cast(Iterable[bytes], self._database(partition).keys(from_key=_STALE_MARK)),
            )
            self._stale[partition] = {key.removeprefix(_STALE_MARK) for key in marks}
        return self._stale[partition]

    def _unmark(self, partition: int, keys: set[bytes]) -> None:
        """Remove the stale marks of keys that were just appended."""
        batch = rocksdict.WriteBatch(raw_mode=True)
        for key in keys:
            batch.delete(_STALE_MARK + key)
        self._database(partition).write(batch, self._write_options())
        self._stale[partition] = set()

    def _may_replace(self, record: Any, old: bytes) -> bool:
        return record.value == old or self.supersedes(record.key, record.value, old)

    def _write(self, partition: int, rows: Iterable[Row], offset: int) -> None:
        batch = rocksdict.WriteBatch(raw_mode=True)
        put, delete = batch.put, batch.delete
        for key, value in rows:
            if value is None:
                delete(key)
            else:
                put(key, value)
        put(BatchStore.offset_key, str(offset).encode())
        self._database(partition).write(batch, self._write_options())

    def _write_options(self) -> rocksdict.WriteOptions:
        options = rocksdict.WriteOptions()
        options.disable_wal = not self.keeps_wal  # type: ignore[assignment,method-assign]  # the stub says a method
        return options

    def _expected(self, partition: int) -> int:
        if partition not in self._next_offset:
            persisted = self._database(partition).get(BatchStore.offset_key)
            self._next_offset[partition] = int(persisted) + 1 if persisted is not None else 0
        return self._next_offset[partition]

    def _database(self, partition: int) -> rocksdict.Rdict:
        return cast(rocksdict.Rdict, self.store._db_for_partition(partition))


def _size_bytes(records: Sequence[Record]) -> int:
    """Return the size of records, including some bytes for the frame of each one."""
    return sum(len(record.key or b"") + len(record.value or b"") + 32 for record in records)
