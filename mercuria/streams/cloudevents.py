"""Events in their envelope: CloudEvents 1.0, structured mode, JSON."""

from datetime import UTC, datetime
from functools import lru_cache
from typing import Any
from uuid import UUID

import msgspec
from msgspec import Struct

from mercuria.domain.events import TYPES, Event

SOURCE = "/mercuria/wallets"

_encode = msgspec.json.Encoder().encode


class CloudEvent(Struct, frozen=True, omit_defaults=True):
    """The envelope. `id` is `<partition>-<offset>` of the command, so a repeated event is the same event."""

    specversion: str
    id: str
    source: str
    type: str
    time: str
    datacontenttype: str
    data: Event
    subject: UUID | None = None


def envelop(event: Event, partition: int, time_ms: int) -> bytes:
    """Return an event of `partition` as JSON. `time_ms` is the command's; the subject is the wallet."""
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


class _Envelope(Struct):
    type: str
    time: str
    data: msgspec.Raw


_decode_envelope = msgspec.json.Decoder(_Envelope).decode
_DECODERS: dict[str, Any] = {name: msgspec.json.Decoder(struct).decode for struct, name in TYPES.items()}


def read_event(value: bytes) -> Event:
    """Return the event in an envelope."""
    return read_told(value)[0]


def read_told(value: bytes) -> tuple[Event, int]:
    """Return the event in an envelope, and when it happened, in ms."""
    envelope = _decode_envelope(value)
    return _DECODERS[envelope.type](envelope.data), _time_ms(envelope.time)


@lru_cache(4)
def rfc3339(time_ms: int) -> str:
    """Return a moment as RFC 3339 has it, in UTC, with milliseconds. Records of one batch share few moments."""
    return (
        datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    )


@lru_cache(1024)
def _time_ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)
