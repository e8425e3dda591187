"""Record batches made by hand, for what no client library lets a producer send."""

import struct
from collections.abc import Callable, Sequence

from aiokafka.client import AIOKafkaClient
from aiokafka.codec import gzip_encode, lz4_encode, snappy_encode, zstd_encode
from aiokafka.errors import for_code
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.record.default_records import DefaultRecordBase
from aiokafka.record.util import calc_crc32c, encode_varint

NONE, GZIP, SNAPPY, LZ4, ZSTD = range(5)
PACK: dict[int, Callable[[bytes], bytes]] = {
    NONE: bytes,
    GZIP: gzip_encode,
    SNAPPY: snappy_encode,
    LZ4: lz4_encode,
    ZSTD: zstd_encode,
}
Header = tuple[bytes, bytes | None]


def varint(number: int) -> bytes:
    """Return a number as records have it."""
    written = bytearray()
    encode_varint(number, written.append)
    return bytes(written)


def sized(content: bytes | None) -> bytes:
    """Return bytes behind their length."""
    return varint(-1) if content is None else varint(len(content)) + content


def record(
    delta: int,
    value: bytes | None,
    key: bytes | None = None,
    headers: Sequence[Header] = (),
    *,
    header_count: int | None = None,
    behind: bytes = b"",
) -> bytes:
    """Return a record that stands at `delta` in its batch; with another count of headers, and with bytes behind it."""
    body = b"".join(
        (
            b"\0",
            varint(0),
            varint(delta),
            sized(key),
            sized(value),
            varint(len(headers) if header_count is None else header_count),
            *(sized(name) + sized(content) for name, content in headers),
            behind,
        )
    )
    return sized(body)


def batch(
    records: Sequence[bytes],
    *,
    codec: int = NONE,
    packed: bytes | None = None,
    count: int | None = None,
    last_delta: int | None = None,
    base_offset: int = 0,
    time_ms: int = 1_700_000_000_000,
    attributes: int = 0,
    producer_id: int = -1,
) -> bytes:
    """Return a record batch, with a checksum that is right.

    Args:
        packed: what stands there in place of the compressed records.
    """
    body = PACK[codec](b"".join(records)) if packed is None else packed
    number = len(records) if count is None else count
    size = DefaultRecordBase.HEADER_STRUCT.size
    epoch, sequence = (0, 0) if producer_id >= 0 else (-1, -1)
    fields = (attributes | codec, number - 1 if last_delta is None else last_delta, time_ms, time_ms)
    checked = struct.pack(">hiqqqhii", *fields, producer_id, epoch, sequence, number) + body
    length = size - 12 + len(body)
    return struct.pack(">qiibI", base_offset, length, -1, 2, calc_crc32c(checked)) + checked


class Refused(Exception):
    """Kafka did not take a batch; the message is the name of its error."""


async def produce(servers: str, topic: str, partition: int, made: bytes) -> int:
    """Send a record batch, and return the offset of its first record.

    Raises:
        Refused: Kafka does not take it.
    """
    client = AIOKafkaClient(bootstrap_servers=servers)
    await client.bootstrap()
    try:
        await client.set_topics([topic])
        (node,) = [each.nodeId for each in client.cluster.brokers()]
        request = ProduceRequest(
            required_acks=-1, timeout=30_000, topics=[(topic, [(partition, made)])], transactional_id=None
        )
        response = await client.send(node, request)
        code, offset = response.topics[0][1][0][1:3]
        if code:
            raise Refused(for_code(code).__name__)
        return int(offset)
    finally:
        await client.close()
