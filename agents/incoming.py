"""Decoding: what a record of the command topic holds, before anything is decided."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple
from uuid import UUID

from mercuria.domain.commands import AnyCommand, Credit, Forwarded, Leg, Refund
from mercuria.domain.parsing import Unreadable, read_command
from mercuria.domain.rejections import DETAILS, Code
from mercuria.kafka.propagation import NO_TRACE, Trace, propagated
from mercuria.kafka.record_batches import UnreadableRecord
from mercuria.kafka.sealing import Seal
from mercuria.kafka.skips import NONE, Skip, Skipped
from mercuria.redis.replies import Address, address_in

READER = "wallets"
"""The name of the wallet agent in traces."""

WITHOUT_RECEIPT = (Unreadable, Skipped, Credit, Refund, Forwarded)
"""What has no receipt: records that no wallet decides, and legs, whose origins are counted instead."""


class Incoming(NamedTuple):
    """A record with its command, and what its headers say: who gets the reply, and the trace that it is part of."""

    record: Any
    command: AnyCommand | Unreadable
    reply_to: Address | None = None
    trace: Trace = NO_TRACE


def incoming(record: Any, command: AnyCommand | Unreadable, partition: int, seal: Seal) -> Incoming:
    """Return a record of a partition with its command, and read its headers."""
    headers = record.headers
    if type(command) is Skipped:
        reply_to: Address | None = None
        with suppress(Exception):
            # The record's defect may be in its headers.
            reply_to = address_in(headers, record.value, seal)
        return Incoming(record, command, reply_to)
    if not headers:
        return Incoming(record, command)
    trace = propagated(headers, READER, partition, record.offset)
    return Incoming(record, command, address_in(headers, record.value, seal), trace)


def command_in(record: Any, skips: Mapping[int, Skip] = NONE) -> AnyCommand | Unreadable:
    """Return the command that a record holds, or the reason why it holds none."""
    if record.offset in skips:
        return _skipped(record, skips[record.offset])
    if type(record) is UnreadableRecord:
        code = Code.UNREADABLE_RECORD
        return Unreadable(code, f"{DETAILS[code][:-1]}: {record.fault}.")
    return read_command(record.value)


def forwarded_command(leg: Forwarded) -> AnyCommand | Unreadable:
    """Return the client's command that a leg forwards."""
    return read_command(bytes(leg.command))


def wallet_ids(commands: Iterable[AnyCommand | Unreadable]) -> list[UUID]:
    """Return the ids of the wallets that commands name."""
    return [command.wallet_id for command in commands if command.wallet_id is not None]


def command_ids(commands: Iterable[AnyCommand | Unreadable]) -> list[UUID]:
    """Return the ids of clients' commands, forwarded ones included."""
    inner = (forwarded_command(command) if type(command) is Forwarded else command for command in commands)
    return [command.id for command in inner if type(command) not in WITHOUT_RECEIPT]  # type: ignore[union-attr]


def type_of(command: AnyCommand | Leg | Unreadable | None) -> str | None:
    """Return the type of a command, as far as it is known."""
    if isinstance(command, Unreadable):
        return command.command_type
    if command is None:
        return None
    return str(type(command).__struct_config__.tag)


def _skipped(record: Any, skip: Skip) -> Skipped:
    command: Any = None
    with suppress(Exception):
        # Reading the record may be what crashes a worker.
        command = read_command(record.value)
    return Skipped(
        code=Code.SKIPPED,
        detail=DETAILS[Code.SKIPPED],
        command_id=getattr(command, "id", None) or getattr(command, "command_id", None),
        command_type=type_of(command),
        wallet_id=getattr(command, "wallet_id", None),
        skip=skip,
    )
