"""Receipts: the outcome of each command id, so that a command that is sent twice has one effect.

A receipt is valid for `receipts_days`, measured by the timestamps of the command topic. In the changelog, the
receipts of one batch are one row (a segment, whose key is the offset of the batch's first record). A segment
expires as a whole: the agent sends its tombstone. In RocksDB, the key of a receipt is `r` and its command id.
The key of a segment is `s` and its offset, which makes expired segments easy to find.
"""

from collections.abc import Iterable, Iterator
from struct import Struct
from typing import cast
from uuid import UUID

import msgspec

from mercuria.domain.events import Status
from mercuria.domain.rejections import CODES, NUMBERS
from mercuria.domain.wallet import Outcome
from mercuria.kafka.batch_table import BatchTable, Row
from mercuria.worker import App

MS_PER_DAY = 24 * 60 * 60 * 1000
FINGERPRINT_BYTES = 8
MAX_EXPIRED_SEGMENTS = 4
"""How many segments a batch expires: more than the one that it adds, so that the table can shrink."""

_SEGMENT_KEY = Struct(">cq")
_RECEIPT = Struct(">qq8sBBqq")
_STATUSES: tuple[Status, ...] = ("open", "frozen", "closed")
_STATUS_NUMBERS = {status: number for number, status in enumerate(_STATUSES)}
_ROW_BYTES = 16 + _RECEIPT.size


class Receipt(msgspec.Struct, frozen=True, gc=False):
    """The outcome of a command, when and where it was decided, and a hash of its content."""

    offset: int
    time_ms: int
    fingerprint: bytes
    code: int
    status: int
    version: int
    balance: int

    @property
    def outcome(self) -> Outcome:
        """The outcome, from which the first answer can be built again."""
        return Outcome(self.balance, self.version, _STATUSES[self.status], CODES.get(self.code))

    def pack(self) -> bytes:
        """Return the receipt in the form that the table stores."""
        return _RECEIPT.pack(
            self.offset,
            self.time_ms,
            self.fingerprint,
            self.code,
            self.status,
            self.version,
            self.balance,
        )


def receipt_of(outcome: Outcome, offset: int, time_ms: int, fingerprint: bytes) -> Receipt:
    """Return the receipt of a command's outcome."""
    code = NUMBERS[outcome.code] if outcome.code else 0
    status = _STATUS_NUMBERS[outcome.status]
    return Receipt(offset, time_ms, fingerprint, code, status, outcome.version, outcome.balance)


class ReceiptsTable(BatchTable):
    """The receipts of all partitions that this worker owns."""

    keeps_wal = False

    def __init__(self, app: App) -> None:
        super().__init__(
            app, name="receipts", partitions=app.settings.partitions, help="What became of each command id."
        )
        self.lifetime_ms = app.settings.receipts_days * MS_PER_DAY
        self._oldest: dict[int, int] = {}

    def find(self, partition: int, ids: list[UUID]) -> dict[int, Receipt]:
        """Return the receipts of those command ids that have one, by the number of the id."""
        values = self.read(partition, [b"r" + each.int.to_bytes(16) for each in ids])
        return {
            each.int: Receipt(*_RECEIPT.unpack(value))
            for each, value in zip(ids, values, strict=True)
            if value is not None
        }

    def expired(self, partition: int, now_ms: int) -> list[Row]:
        """Return tombstones for the oldest segments whose receipts have all expired at `now_ms`."""
        before_ms = now_ms - self.lifetime_ms
        if self._oldest.get(partition, 0) >= before_ms:
            return []
        rows: list[Row] = []
        for key, value in self._segments(partition):
            self._oldest[partition] = newest_ms = _newest_ms(value)
            if newest_ms >= before_ms or len(rows) == MAX_EXPIRED_SEGMENTS:
                return rows
            rows.append((key, None))
        # All segments in the table expire; the next one to come is younger than this.
        self._oldest[partition] = before_ms
        return rows

    def expand(self, partition: int, row: Row) -> Iterable[Row]:
        """Return the receipts of a segment; for a tombstone, return the receipts that expire with it."""
        key, value = row
        yield row
        if value is not None:
            yield from unpack_segment(value)
            return
        segment = self.read(partition, [key])[0]
        expiring = list(unpack_segment(segment)) if segment else []
        current = self.read(partition, [key for key, _ in expiring])
        for (receipt_key, receipt), now in zip(expiring, current, strict=True):
            # If the id has been used again since then, its new receipt stays.
            if now == receipt:
                yield receipt_key, None

    def supersedes(self, key: bytes, new: bytes, old: bytes) -> bool:
        """Return whether `new` has at least as many receipts as `old`.

        A zombie writer may have decided a shorter part of the same batch.
        """
        return len(new) >= len(old)

    def forget(self, partition: int) -> None:
        """Drop the cached data of a partition."""
        super().forget(partition)
        self._oldest.pop(partition, None)

    def _segments(self, partition: int) -> Iterator[tuple[bytes, bytes]]:
        items = self._database(partition).items(from_key=_SEGMENT_KEY.pack(b"s", 0))
        return cast(Iterator[tuple[bytes, bytes]], items)


def segment_row(first_offset: int, receipts: dict[int, Receipt]) -> Row:
    """Return the receipts of the batch that begins at `first_offset` as one row."""
    parts = [number.to_bytes(16) + receipt.pack() for number, receipt in receipts.items()]
    return _SEGMENT_KEY.pack(b"s", first_offset), b"".join(parts)


def unpack_segment(value: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Return the keys and packed receipts of a segment, as RocksDB stores them."""
    for start in range(0, len(value), _ROW_BYTES):
        yield b"r" + value[start : start + 16], value[start + 16 : start + _ROW_BYTES]


def _newest_ms(segment: bytes) -> int:
    newest: int = _RECEIPT.unpack(segment[-_RECEIPT.size :])[1]
    return newest
