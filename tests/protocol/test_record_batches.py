"""Record batches that are not as a client library makes them: what can be read is read, at its own offset."""

import tracemalloc
from hashlib import sha256
from typing import Any

import cramjam
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mercuria.kafka import record_batches
from mercuria.kafka.record_batches import RecordBatches, UnreadableRecord

from .hand_made import GZIP, LZ4, NONE, PACK, SNAPPY, ZSTD, batch, record, varint

CODECS = [NONE, GZIP, SNAPPY, LZ4, ZSTD]
NOT_UTF_8 = b"\xe9tat"


def read(*batches: bytes) -> list[Any]:
    """Return the records of some batches that a fetch returned."""
    batches_of_fetch, found = RecordBatches(b"".join(batches)), []
    while batches_of_fetch.has_next():
        found += list(batches_of_fetch.next_batch())
    return found


def shown(records: list[Any]) -> list[Any]:
    """Return offsets with values, or with why there is none."""
    return [(each.offset, getattr(each, "fault", None) or each.value) for each in records]


@pytest.mark.parametrize("codec", CODECS)
def test_a_header_whose_name_is_not_utf_8_is_absent(codec: int) -> None:
    headers = [(b"reply-to", b"a:1"), (NOT_UTF_8, b"x"), (b"request-id", None)]
    made = batch(
        [record(0, b"a"), record(1, b"b", b"k", headers), record(2, b"c")], codec=codec, base_offset=7
    )
    found = read(made)
    assert shown(found) == [(7, b"a"), (8, b"b"), (9, b"c")]
    assert list(found[1].headers) == [("reply-to", b"a:1"), ("request-id", None)] and found[1].key == b"k"


@pytest.mark.parametrize("codec", CODECS)
def test_good_batches_of_every_codec_are_read(codec: int) -> None:
    values = [bytes([number % 256]) * number for number in range(3000)]
    made = batch([record(number, value) for number, value in enumerate(values)], codec=codec)
    assert [each.value for each in read(made)] == values


def test_snappy_without_a_frame_is_read() -> None:
    body = record(0, b"a") + record(1, b"b")
    packed = bytes(cramjam.snappy.compress_raw(body))
    assert shown(read(batch([], packed=packed, count=2, codec=SNAPPY))) == [(0, b"a"), (1, b"b")]


@pytest.mark.parametrize("codec", [GZIP, ZSTD, LZ4])
def test_what_was_compressed_in_several_pieces_is_read(codec: int) -> None:
    packed = PACK[codec](record(0, b"a")) + PACK[codec](record(1, b"b"))
    assert shown(read(batch([], packed=packed, count=2, codec=codec))) == [(0, b"a"), (1, b"b")]


BAD = {
    "a count of headers below zero": record(1, b"b", header_count=-1),
    "more headers than there are": record(1, b"b", header_count=2**31 - 1),
    "a header without a name": record(1, b"b", header_count=1, behind=varint(-1) + varint(-1)),
    "a header that is cut off": record(1, b"b", header_count=1, behind=varint(400) + b"x"),
    "bytes behind it": record(1, b"b", behind=b"xyz"),
    "no bytes at all": varint(0),
    "nothing but attributes": varint(1) + b"\0",
    "an offset before its batch": record(-1, b"b"),
    "an offset far behind its batch": record(2**30, b"b"),
    "the offset of another record": record(2, b"b"),
}


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
def test_a_record_that_cannot_be_read_stands_alone(bad: bytes, codec: int) -> None:
    found = read(batch([record(0, b"a"), bad, record(2, b"c")], codec=codec, base_offset=40))
    assert [each.offset for each in found] == [40, 41, 42]
    assert (found[0].value, found[2].value) == (b"a", b"c")
    assert isinstance(found[1], UnreadableRecord) and found[1].fault
    whole = bad[len(varint(len(bad))) :] if found[1].size_bytes else b""
    assert found[1].digest == sha256(whole).digest() and found[1].size_bytes == len(whole)


@pytest.mark.parametrize("length", [varint(-5), varint(2**31 - 1), b"\xff" * 12])
def test_nothing_can_be_read_behind_a_length_that_is_wrong(length: bytes) -> None:
    made = batch([record(0, b"a"), length, record(2, b"c")])
    found = read(made, batch([record(0, b"d")], base_offset=3))
    assert [each.offset for each in found] == [0, 1, 2, 3]
    assert (found[0].value, found[3].value) == (b"a", b"d")
    assert all(
        isinstance(each, UnreadableRecord) and each.digest == sha256(made).digest() for each in found[1:3]
    )


@pytest.mark.parametrize("codec", [GZIP, SNAPPY, LZ4, ZSTD])
def test_what_cannot_be_unpacked_keeps_its_offsets(codec: int) -> None:
    found = read(
        batch([], packed=b"no such thing", count=2, codec=codec), batch([record(0, b"c")], base_offset=2)
    )
    assert [each.offset for each in found] == [0, 1, 2]
    assert all("cannot be unpacked" in each.fault for each in found[:2]) and found[2].value == b"c"


def test_a_codec_that_nobody_knows_is_no_crash() -> None:
    (found,) = read(batch([], packed=b"x", count=1, codec=NONE, attributes=7))
    assert "compressed in a way that is not known" in found.fault


@pytest.fixture
def limit_bytes(monkeypatch: pytest.MonkeyPatch) -> int:
    """Let little be unpacked, so that a bomb is soon made."""
    limit = 3 * 1024 * 1024
    monkeypatch.setattr(record_batches, "MAX_UNPACKED_BYTES", limit)
    return limit


@pytest.mark.parametrize("codec", [GZIP, SNAPPY, LZ4, ZSTD])
def test_a_bomb_is_unpacked_up_to_a_limit(codec: int, limit_bytes: int) -> None:
    made = batch([record(0, b"a"), record(1, bytes(10 * limit_bytes)), record(2, b"c")], codec=codec)
    tracemalloc.start()
    try:
        found = read(made)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [each.offset for each in found] == [0, 1, 2]
    for each in found[1:]:
        assert isinstance(each, UnreadableRecord) and "bytes when it is unpacked" in each.fault
        assert each.digest == sha256(made).digest()
    assert peak_bytes < 4 * limit_bytes


def test_a_bomb_of_many_records_is_read_up_to_the_limit(limit_bytes: int) -> None:
    large = [record(number, bytes(limit_bytes // 10)) for number in range(1, 20)]
    found = read(batch([record(0, b"a"), *large], codec=ZSTD))
    assert [each.offset for each in found] == list(range(20))
    assert [isinstance(each, UnreadableRecord) for each in found] == 10 * [False] + 10 * [True]


@given(
    codec=st.sampled_from(CODECS),
    changes=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=6),
    packed_changes=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=3),
)
def test_whatever_stands_in_a_batch_each_offset_comes_once(
    codec: int, changes: list[tuple[int, int]], packed_changes: list[tuple[int, int]]
) -> None:
    headers = [(b"reply-to", b"a:1"), (b"request-id", None)]
    body = bytearray(b"".join(record(number, b"v" * number, b"k", headers) for number in range(9)))
    for at, byte in changes:
        body[at % len(body)] = byte
    packed = bytearray(PACK[codec](bytes(body)))
    for at, byte in packed_changes:
        packed[at % len(packed)] = byte
    found = read(batch([], packed=bytes(packed), count=9, codec=codec, base_offset=30))
    assert [each.offset for each in found] == list(range(30, 39))


def test_compacted_batches_have_gaps() -> None:
    made = batch([record(3, b"a"), record(9, b"b", headers=[(NOT_UTF_8, b"")])], last_delta=12)
    assert shown(read(made)) == [(3, b"a"), (9, b"b")]
