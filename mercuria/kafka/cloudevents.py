"""The envelope of events: CloudEvents 1.0, structured mode, JSON."""

from datetime import datetime
from functools import lru_cache
from typing import Any
from uuid import UUID

import msgspec
from msgspec import Struct

from mercuria.domain.events import TYPES, Event
from mercuria.domain.ledger import Entry
from mercuria.domain.transaction import TransactionCompleted, TransactionEvent, TransactionFailed
from mercuria.timestamps import rfc3339

SOURCE = "/mercuria/wallets"

NumberedEvent = TransactionEvent | Entry
"""Events that are derived from other events, and numbered from 1 in each partition."""

NUMBERED: dict[type, tuple[str, str]] = {
    TransactionCompleted: ("transaction.completed", "/mercuria/transactions"),
    TransactionFailed: ("transaction.failed", "/mercuria/transactions"),
    Entry: ("ledger.entry_created", "/mercuria/ledger"),
}
"""The type and the source of each event."""

_encode = msgspec.json.Encoder().encode


class CloudEvent(Struct, frozen=True, omit_defaults=True):
    """The envelope. `id` is derived, so a repeated event is the same event: `<partition>-<offset>` of the command for
    what wallets say, and `<partition>-<sequence>` for what is made of that.
    """

    specversion: str
    id: str
    source: str
    type: str
    time: str
    datacontenttype: str
    data: Event | NumberedEvent
    subject: UUID | None = None


def envelop(event: Event, partition: int, time_ms: int) -> bytes:
    """Return an event of `partition` as JSON. `time_ms` is the command's time; the subject is the wallet."""
    return _encode(
        CloudEvent(
            "1.0",
            f"{partition}-{event.offset}",
            SOURCE,
            TYPES[type(event)],
            rfc3339(time_ms),
            "application/json",
            event,
            event.wallet_id,
        )
    )


def envelop_numbered(event: NumberedEvent, partition: int, time_ms: int) -> bytes:
    """Return an event of `partition` as JSON; the subject is the transaction."""
    type_, source = NUMBERED[type(event)]
    id_ = f"{partition}-{event.sequence}"
    return _encode(
        CloudEvent(
            "1.0", id_, source, type_, rfc3339(time_ms), "application/json", event, event.transaction_id
        )
    )


class _Envelope(Struct):
    type: str
    time: str
    data: msgspec.Raw


_decode_envelope = msgspec.json.Decoder(_Envelope).decode
_TYPES = TYPES | {struct: type_ for struct, (type_, _) in NUMBERED.items()}
_DECODERS: dict[str, Any] = {name: msgspec.json.Decoder(struct).decode for struct, name in _TYPES.items()}


def read_event(value: bytes) -> Event:
    """Return the event in an envelope."""
    return read_wallet_event(value)[0]


def read_wallet_event(value: bytes) -> tuple[Event, int]:
    """Return the event in an envelope, and its time in ms."""
    envelope = _decode_envelope(value)
    return _DECODERS[envelope.type](envelope.data), _time_ms(envelope.time)


def read_numbered(value: bytes) -> tuple[NumberedEvent, int]:
    """Return the event in an envelope of the transaction or the ledger topic, and its time in ms."""
    envelope = _decode_envelope(value)
    return _DECODERS[envelope.type](envelope.data), _time_ms(envelope.time)


@lru_cache(1024)
def _time_ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)
