"""Record batches as Kafka returns them: parses their records, including those of corrupt batches.

Kafka checks little of a producer's batch. aiokafka's parser rejects a whole batch because of one corrupt
record, and unpacks a batch of any size: 6 KB of zeros in zstd may be gigabytes. So this module unpacks
batches up to a limit, and reads a batch that aiokafka's parser rejects record by record. A record that cannot
be read becomes an `UnreadableRecord` at its own offset.
"""

import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from itertools import chain, islice
from typing import Any

import cramjam
from aiokafka.errors import CorruptRecordException, UnsupportedCodecError
from aiokafka.record.default_records import DefaultRecordBase, DefaultRecordBatch, _DefaultRecordPy
from aiokafka.record.memory_records import _MemoryRecordsPy
from aiokafka.record.util import decode_varint
from msgspec import Struct

MAX_UNPACKED_BYTES = 64 * 1024 * 1024
"""The maximum size of an unpacked record batch. Kafka accepts batches of 2 MiB; those of JSON commands have
at most 20 MiB."""

PIECE_RECORDS, PIECE_BYTES = 5_000, 4 * 1024 * 1024

_USUAL_BYTES = 1024 * 1024
_MAGIC_WITH_HEADERS = 2

_HEADER = DefaultRecordBase.HEADER_STRUCT
_MISFITS = CorruptRecordException, ValueError, IndexError, OverflowError, AssertionError
_MISPLACED = "its offset is not that of its place in the record batch"

_CODEC_AT = DefaultRecordBase.ATTRIBUTES_OFFSET + 1


class UnreadableRecord(Struct, frozen=True, gc=False):
    """A record of which only the position and the reason why it cannot be read are known.

    Args:
        fault: the reason, as a sentence.
        size_bytes: the size of the whole record, if the record states it.
        digest: SHA-256 of the record's bytes if they are there, else of the record batch as Kafka has it.
    """

    offset: int
    timestamp: int
    timestamp_type: int
    fault: str
    size_bytes: int | None
    digest: bytes
    key: bytes | None = None
    value: bytes | None = None
    headers: tuple[tuple[str, bytes | None], ...] = ()
    checksum: int | None = None

    @property
    def facts(self) -> list[tuple[str, bytes]]:
        """The known facts about the record, as headers of its dead letter."""
        size = [] if self.size_bytes is None else [("record-bytes", b"%d" % self.size_bytes)]
        return [*size, ("digest", self.digest.hex().encode())]


class RecordBatches(_MemoryRecordsPy):  # type: ignore[misc]  # aiokafka is untyped
    """The record batches that a fetch has returned for a partition. The last one may be cut off."""

    def next_batch(self, *_options: Any) -> Any:
        """Return the next batch, or None at the end."""
        raw = self._next_slice
        if raw is not None and len(raw) >= _HEADER.size and raw[16] >= _MAGIC_WITH_HEADERS:
            self._cache_next()
            return RecordBatch(raw)
        return super().next_batch()


class RecordBatch:
    """One record batch with the interface of aiokafka's, which goes on reading where aiokafka's stops."""

    def __init__(self, raw: memoryview) -> None:
        self._raw = raw
        self._header = DefaultRecordBatch(raw)
        self.base_offset: int = self._header.base_offset
        self.next_offset: int = self._header.next_offset
        self.producer_id: int = self._header.producer_id
        self.is_transactional: bool = self._header.is_transactional
        self.is_control_batch: bool = self._header.is_control_batch
        self.record_bytes = 0
        """The average size of a record, known after reading."""
        self._records: Iterator[Any] | None = None
        self._count: int = _HEADER.unpack_from(raw)[12]
        # If compaction has removed nothing, each offset has a record.
        self._is_complete = self._count == self.next_offset - self.base_offset

    def validate_crc(self) -> bool:
        """Return whether the checksum of the batch is right."""
        return bool(self._header.validate_crc())

    def __iter__(self) -> Iterator[Any]:
        """Yield the records that were not yielded yet."""
        if self._records is None:
            self._records = (record for piece in self.pieces() for record in piece)
        return self._records

    def __next__(self) -> Any:
        return next(iter(self))

    def pieces(self) -> Iterator[list[Any]]:
        """Yield the records in lists of at most some thousand records and about `PIECE_BYTES`."""
        body, fault = _unpacked(self._header.compression_type, self._raw[_HEADER.size :])
        self.record_bytes = len(body) // max(1, self._count)
        length = max(1, min(PIECE_RECORDS, PIECE_BYTES // max(1, self.record_bytes)))
        taken = 0
        if fault is None:
            # `chain` is needed because aiokafka's iterator can be obtained only once.
            records = chain(self._parsed(body))
            # Inconsistent data raises an error: one bad record is enough.
            with suppress(*_MISFITS):
                while piece := list(islice(records, length)):
                    self._check_offsets(piece, taken)
                    yield piece
                    taken += len(piece)
                return
        rest = islice(self._one_by_one(body, fault), taken, None)
        while piece := list(islice(rest, length)):
            yield piece

    def _check_offsets(self, piece: list[Any], taken: int) -> None:
        """Check that records have the offsets of the batch.

        Kafka does not check that, and after a wrong offset, later records would count as read.

        Raises:
            ValueError: an offset is wrong.
        """
        offsets, first = [record.offset for record in piece], self.base_offset + taken
        if self._is_complete:
            is_right = offsets == list(range(first, first + len(piece)))
        else:
            is_right = (
                offsets == sorted(set(offsets)) and first <= offsets[0] and offsets[-1] < self.next_offset
            )
        if not is_right:
            raise ValueError(_MISPLACED)

    def _parsed(self, body: bytes | memoryview) -> Iterator[Any]:
        if not self._header.compression_type:
            return iter(DefaultRecordBatch(self._raw))
        return iter(DefaultRecordBatch(b"".join((_without_codec(self._raw), body))))

    def _one_by_one(self, body: bytes | memoryview, fault: str | None) -> Iterator[Any]:
        """Read records of which some are corrupt. Each follows its length, so the next one can be found.

        Args:
            body: the unpacked records.
            fault: why `body` may be incomplete; None if it is complete.
        """
        header = _HEADER.unpack_from(self._raw)
        first_ms, max_ms = header[7:9]
        is_appended = bool(header[5] & DefaultRecordBase.TIMESTAMP_TYPE_MASK)
        common = (self.base_offset, max_ms if is_appended else None, first_ms, int(is_appended))
        buffer, at, offset = bytearray(body), 0, self.base_offset
        lost: str | None = None
        for _ in range(min(self._count, self.next_offset - self.base_offset)):
            whole, size, why = None, None, lost
            try:
                if lost is None:
                    size, start = decode_varint(buffer, at)
                    at = start + size
                    if size < 0 or at > len(buffer):
                        raise IndexError("it is longer than its record batch")
                    whole = memoryview(buffer)[start:at]
                    record = _record(whole, *common)
                    if not offset <= record.offset < (offset + 1 if self._is_complete else self.next_offset):
                        raise ValueError(_MISPLACED)
            except (ValueError, IndexError, OverflowError) as error:
                why = str(error)
                if whole is None:
                    # The records after it cannot be found either.
                    why = lost = fault or why
            if why is None:
                offset = record.offset
                yield record
            else:
                time_ms = max_ms if is_appended else first_ms
                digest = sha256(self._raw if whole is None else whole).digest()
                yield UnreadableRecord(offset, time_ms, int(is_appended), why, size, digest)
            offset += 1


def _without_codec(raw: memoryview) -> bytes:
    header = bytearray(raw[: _HEADER.size])
    header[_CODEC_AT] &= ~DefaultRecordBase.CODEC_MASK
    return bytes(header)


class _Scratch(threading.local):
    """The buffer for unpacking a batch. Each thread has its own buffer, and reuses it."""

    def __init__(self) -> None:
        self.usual = bytearray(_USUAL_BYTES)


_scratch = _Scratch()


def _unpacked(codec: int, packed: memoryview) -> tuple[bytes | memoryview, str | None]:
    """Return the records of a batch, and why they may be incomplete; None if they are complete."""
    try:
        if codec == DefaultRecordBase.CODEC_NONE:
            return packed, None
        if codec == DefaultRecordBase.CODEC_GZIP:
            return _gunzipped(packed)
        if codec == DefaultRecordBase.CODEC_SNAPPY:
            return _unsnapped(packed)
        if codec == DefaultRecordBase.CODEC_LZ4:
            return _streamed(cramjam.lz4, packed)
        if codec == DefaultRecordBase.CODEC_ZSTD:
            return _streamed(cramjam.zstd, packed)
    except (cramjam.DecompressionError, zlib.error, UnsupportedCodecError, struct.error, ValueError) as error:
        return b"", f"its record batch cannot be unpacked: {error}"
    return b"", f"its record batch is compressed in a way that is not known ({codec})"


_TOO_MUCH = f"its record batch has more than {MAX_UNPACKED_BYTES} bytes when it is unpacked"


def _gunzipped(packed: memoryview) -> tuple[bytes, str | None]:
    pieces, room, rest = list[bytes](), MAX_UNPACKED_BYTES, bytes(packed)
    while rest:
        # One member after the other, as `gzip` does.
        unpacking = zlib.decompressobj(zlib.MAX_WBITS | 16)
        pieces.append(unpacking.decompress(rest, room + 1))
        room -= len(pieces[-1])
        if room < 0:
            return b"".join(pieces), _TOO_MUCH
        if not unpacking.eof:
            raise zlib.error("it ends too early")
        rest = unpacking.unused_data
    return b"".join(pieces), None


_XERIAL = b"\x82SNAPPY\x00"
_XERIAL_HEADER_BYTES = 16


def _unsnapped(packed: memoryview) -> tuple[bytes, str | None]:
    """Unpack snappy: a single block, or blocks after xerial's header, which Java clients write."""
    if packed[: len(_XERIAL)] != _XERIAL:
        blocks = [packed]
    else:
        blocks, at = [], _XERIAL_HEADER_BYTES
        while at < len(packed):
            size = int.from_bytes(packed[at : at + 4])
            blocks.append(packed[at + 4 : at + 4 + size])
            at += 4 + size
    pieces, room = list[bytes](), MAX_UNPACKED_BYTES
    for block in blocks:
        room -= cramjam.snappy.decompress_raw_len(block)
        if room < 0:
            return b"".join(pieces), _TOO_MUCH
        pieces.append(bytes(cramjam.snappy.decompress_raw(block)))
    return b"".join(pieces), None


def _streamed(codec: Any, packed: memoryview) -> tuple[bytes, str | None]:
    """Unpack data of unknown size. If it does not fit, the codec has filled the whole buffer."""
    try:
        size = codec.decompress_into(packed, _scratch.usual)
        return bytes(memoryview(_scratch.usual)[:size]), None
    except cramjam.DecompressionError as error:
        if not _is_full(error):
            raise
    room = bytearray(MAX_UNPACKED_BYTES)
    try:
        size = codec.decompress_into(packed, room)
    except cramjam.DecompressionError as error:
        if not _is_full(error):
            raise
        return bytes(room), _TOO_MUCH
    return bytes(memoryview(room)[:size]), None


def _is_full(error: Exception) -> bool:
    return "whole buffer" in str(error)


def _record(
    whole: memoryview, base_offset: int, appended_ms: int | None, first_ms: int, timestamp_type: int
) -> _DefaultRecordPy:
    """Read a record without its length.

    A header whose name is not UTF-8 is left out, because no reader looks up such a name.

    Raises:
        ValueError: the data is not a valid record.
        IndexError: the record is cut off.
    """
    buffer = bytearray(whole)
    # The first byte holds attributes.
    delta_ms, at = decode_varint(buffer, 1)
    delta, at = decode_varint(buffer, at)
    key, at = _bytes(buffer, at)
    value, at = _bytes(buffer, at)
    count, at = decode_varint(buffer, at)
    if count < 0:
        raise ValueError(f"it says that it has {count} headers")
    headers = []
    for _ in range(count):
        name, at = _bytes(buffer, at)
        if name is None:
            raise ValueError("a header has no name")
        content, at = _bytes(buffer, at)
        with suppress(UnicodeDecodeError):
            headers.append((name.decode(), content))
    if at != len(buffer):
        raise ValueError(f"{len(buffer) - at} bytes stand behind it")
    time_ms = first_ms + delta_ms if appended_ms is None else appended_ms
    return _DefaultRecordPy(base_offset + delta, time_ms, timestamp_type, key, value, headers)


def _bytes(buffer: bytearray, at: int) -> tuple[bytes | None, int]:
    """Read bytes after their length, and return them with their end. A negative length means None."""
    size, at = decode_varint(buffer, at)
    if size < 0:
        return None, at
    if size > len(buffer) - at:
        raise IndexError("it is cut off")
    return bytes(buffer[at : at + size]), at + size
