"""Dead letters: the copies of records that no wallet decides.

Kafka limits a record by its size after the client's compression; before compression, it may have hundreds of
megabytes. The size of a dead letter depends on the size before compression. It is therefore a function of the
record alone, and fits whatever compression the topic has.
"""

from hashlib import sha256
from typing import Any

from mercuria.domain.parsing import Unreadable
from mercuria.kafka.producer import Record
from mercuria.kafka.record_batches import UnreadableRecord
from mercuria.kafka.skips import Skipped
from mercuria.topics import MAX_COMMAND_RECORD_BYTES, WALLET_COMMANDS

MAX_KEPT_BYTES = MAX_COMMAND_RECORD_BYTES
"""A record is kept unchanged up to this size of key and value: all that Kafka takes uncompressed."""

FIRST_KEY_BYTES = 1024
FIRST_VALUE_BYTES = 64 * 1024
"""How much of the value of a larger record is kept."""


def dead_letter_of(partition: int, record: Any, fault: Unreadable, topic: str = WALLET_COMMANDS) -> Record:
    """Return the dead letter for `record`, which was read from a partition of a topic."""
    headers = [
        ("code", str(fault.code).encode()),
        ("detail", fault.detail.encode()),
        ("topic", topic.encode()),
        ("partition", b"%d" % partition),
        ("offset", b"%d" % record.offset),
    ]
    if type(record) is UnreadableRecord:
        headers += record.facts
    if type(fault) is Skipped:
        headers += fault.skip.headers
    key, value = record.key, record.value or b""
    if len(key or b"") + len(value) > MAX_KEPT_BYTES:
        headers += _measures(key or b"", value, record.headers)
        key = None if key is None else key[:FIRST_KEY_BYTES]
        value = value[:FIRST_VALUE_BYTES]
    return Record(key, value, record.timestamp, headers)


def _measures(key: bytes, value: bytes, headers: Any) -> list[tuple[str, bytes]]:
    """Return the headers that identify a record that is not kept unchanged."""
    digest = sha256(key)
    digest.update(value)
    # Bytes of a header's name that are not text are each replaced.
    headers_bytes = sum(len(name.encode(errors="replace")) + len(each or b"") for name, each in headers)
    return [
        ("digest", digest.hexdigest().encode()),
        ("key-bytes", b"%d" % len(key)),
        ("value-bytes", b"%d" % len(value)),
        ("headers-bytes", b"%d" % headers_bytes),
    ]
