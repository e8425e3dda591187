"""Dead letters: what is kept of a record that no wallet decides.

Kafka takes a record by its size after the client's compression, which may be hundreds of megabytes before. What is kept
goes by the size before, so it depends on the record alone, and fits whatever compression the topic has.
"""

from hashlib import sha256
from typing import Any

from mercuria.domain.parsing import Unreadable
from mercuria.kafka.producer import Record
from mercuria.kafka.record_batches import UnreadableRecord
from mercuria.kafka.skips import Skipped
from mercuria.topics import MAX_COMMAND_RECORD_BYTES, WALLET_COMMANDS

MAX_KEPT_BYTES = MAX_COMMAND_RECORD_BYTES
"""Up to which size of key and value together a record is kept as it came: all that Kafka takes without compression."""

FIRST_KEY_BYTES = 1024
FIRST_VALUE_BYTES = 64 * 1024
"""What is kept of a larger one."""


def dead_letter_of(partition: int, record: Any, fault: Unreadable, topic: str = WALLET_COMMANDS) -> Record:
    """Return the record that keeps `record`, which came in a partition of a topic."""
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
    """Return what a record is recognised by that is not kept as it came."""
    digest = sha256(key)
    digest.update(value)
    # A name that is no text has a replacement for each byte that is none.
    headers_bytes = sum(len(name.encode(errors="replace")) + len(each or b"") for name, each in headers)
    return [
        ("digest", digest.hexdigest().encode()),
        ("key-bytes", b"%d" % len(key)),
        ("value-bytes", b"%d" % len(value)),
        ("headers-bytes", b"%d" % headers_bytes),
    ]
