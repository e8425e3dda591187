"""Deciding a batch: from the records of one partition to everything that has to be written because of them.

Nothing is sent or stored here. What comes out depends on the records and on the tables' rows alone, never on where a
batch begins or ends, so a batch that is decided again after a crash gives the same bytes.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any, cast
from uuid import UUID

import msgspec

from mercuria.domain.commands import (
    AnyCommand,
    ClientCommand,
    Credit,
    Forwarded,
    Leg,
    Origin,
    Refund,
)
from mercuria.domain.events import CommandRejected, Event, Position
from mercuria.domain.parsing import Unreadable, read_command
from mercuria.domain.rejections import DETAILS, Code
from mercuria.domain.transfer import react
from mercuria.domain.wallet import Wallet, evolve, tell, weigh
from mercuria.streams.cloudevents import envelop
from mercuria.streams.routing import key_of, partition_of
from mercuria.streams.seal import Seal
from mercuria.streams.transport import Record
from mercuria.tables.balances import AppliedPosition
from mercuria.tables.receipts import FINGERPRINT_BYTES, Receipt, receipt_of

MAX_TOUCHED_BYTES = 1024 * 1024
"""A batch ends early when the metadata of its wallets exceed this: its rows must fit into one record batch."""

_encode_json = msgspec.json.Encoder().encode
_encode_body = msgspec.msgpack.Encoder(uuid_format="bytes").encode

_LEGS = (Credit, Refund, Forwarded)


class Installation(msgspec.Struct, frozen=True):
    """What all workers of an installation agree on."""

    partitions: int
    receipts_lifetime_ms: int
    seal: Seal


class Batch:
    """The decisions on some records of one partition.

    Args:
        wallets: the wallets that the commands name, None for one that does not exist.
        receipts: the receipts of the command ids, as far as there are any.
    """

    def __init__(
        self,
        installation: Installation,
        partition: int,
        position: AppliedPosition,
        wallets: Mapping[UUID, Wallet | None],
        receipts: Mapping[UUID, Receipt],
    ) -> None:
        self.partition = partition
        self.events: list[Record] = []
        self.legs: defaultdict[int, list[Record]] = defaultdict(list)
        self.dead_letters: list[Record] = []
        self.receipts: dict[UUID, Receipt] = {}
        self.wallets: dict[UUID, Wallet] = {}
        self.offset = position.offset
        self.time_ms = 0
        self.origins = dict(position.origins)
        self._installation = installation
        self._known_wallets = wallets
        self._known_receipts = receipts
        self._touched_bytes = 0

    @property
    def position(self) -> AppliedPosition:
        """Up to where the partition is decided with this batch."""
        return AppliedPosition(self.offset, self.origins)

    @property
    def is_full(self) -> bool:
        """Whether no further record may be taken."""
        return self._touched_bytes > MAX_TOUCHED_BYTES

    def take(self, record: Any, command: AnyCommand | Unreadable) -> None:
        """Decide one record; `command` is what it holds."""
        self.offset, self.time_ms = record.offset, record.timestamp
        kind = type(command)
        if kind is Unreadable:
            self._refuse(record, cast(Unreadable, command))
        elif kind in _LEGS:
            self._take_leg(record, cast(Leg, command))
        else:
            self._take_command(record, cast(ClientCommand, command))

    def _take_command(self, record: Any, command: ClientCommand) -> None:
        if record.key != key_of(command.wallet_id):
            self._refuse_readable(record, command, Code.KEY_MISMATCH if record.key else Code.MISSING_KEY)
            return
        home = partition_of(command.wallet_id, self._installation.partitions)
        if home == self.partition:
            self._decide_once(record, command)
        else:
            self._forward(record, command, home)

    def _take_leg(self, record: Any, leg: Leg) -> None:
        home = partition_of(leg.wallet_id, self._installation.partitions)
        if home != self.partition or not self._installation.seal.holds(record.value):
            self._refuse_readable(record, leg, Code.LEG_NOT_AUTHENTIC)
            return
        source, offset = leg.origin.partition, leg.origin.offset
        if offset <= self.origins.get(source, -1):
            return
        self.origins[source] = offset
        if type(leg) is Forwarded:
            command = _forwarded(leg)
            assert type(command) not in _WITHOUT_RECEIPT, "it was read before it was forwarded"
            self._decide_once(record, cast(ClientCommand, command))
        else:
            self._decide(
                cast(Credit | Refund, leg), Position(self.partition, record.offset, record.timestamp)
            )

    def _decide_once(self, record: Any, command: ClientCommand) -> None:
        """Decide a client's command, unless its id has a receipt."""
        offset, time_ms = record.offset, record.timestamp
        fingerprint = blake2b(_encode_body(command), digest_size=FINGERPRINT_BYTES).digest()
        receipt = self.receipts.get(command.id) or self._known_receipts.get(command.id)
        if receipt is None or not self._is_earlier(receipt, offset, time_ms):
            outcome = self._decide(command, Position(self.partition, offset, time_ms))
            self.receipts[command.id] = receipt_of(outcome, offset, time_ms, fingerprint)
        elif receipt.fingerprint == fingerprint:
            first = Position(self.partition, receipt.offset, receipt.time_ms)
            self._emit(tell(command, self._wallet(command.wallet_id), receipt.outcome, first), first)
        else:
            self._refuse_readable(record, command, Code.COMMAND_ID_REUSED, dead_letter=False)

    def _is_earlier(self, receipt: Receipt, offset: int, time_ms: int) -> bool:
        """Tell whether a receipt is still valid, and not this very record's (or a later one's) before a crash."""
        return (
            receipt.offset < offset and time_ms - receipt.time_ms <= self._installation.receipts_lifetime_ms
        )

    def _decide(self, command: ClientCommand | Credit | Refund, at: Position) -> Any:
        wallet = self._wallet(command.wallet_id)
        outcome = weigh(command, wallet)
        event = tell(command, wallet, outcome, at)
        if outcome.code is None:
            self._touch(evolve(wallet, event, at.time_ms), wallet)
        self._emit(event, at)
        leg = react(command, event, at)
        if leg is not None:
            self._send(leg, at.time_ms)
        return outcome

    def _forward(self, record: Any, command: ClientCommand, home: int) -> None:
        origin = Origin(self.partition, record.offset)
        leg = Forwarded(origin=origin, wallet_id=command.wallet_id, command=msgspec.Raw(record.value))
        self._send(leg, record.timestamp, home)

    def _send(self, leg: Leg, time_ms: int, home: int | None = None) -> None:
        if home is None:
            home = partition_of(leg.wallet_id, self._installation.partitions)
        sealed = self._installation.seal.close(_encode_json(leg))
        self.legs[home].append(Record(key_of(leg.wallet_id), sealed, time_ms))

    def _emit(self, event: Event, at: Position) -> None:
        key = key_of(cast(UUID, event.wallet_id))
        self.events.append(Record(key, envelop(event, self.partition, at.time_ms, key.decode()), at.time_ms))

    def _refuse_readable(
        self, record: Any, command: ClientCommand | Leg, code: Code, dead_letter: bool = True
    ) -> None:
        """Refuse what is a command, but not one that a wallet may decide."""
        kind = str(type(command).__struct_config__.tag)
        id_ = getattr(command, "id", None)
        self._refuse(record, Unreadable(code, DETAILS[code], id_, kind, command.wallet_id), dead_letter)

    def _refuse(self, record: Any, fault: Unreadable, dead_letter: bool = True) -> None:
        """Answer a record that no wallet decides, and keep it as it came."""
        event = CommandRejected(
            offset=record.offset,
            code=fault.code,
            detail=fault.detail,
            command_id=fault.command_id,
            command_type=fault.command_type,
            wallet_id=fault.wallet_id,
        )
        key = key_of(fault.wallet_id) if fault.wallet_id else None
        value = envelop(event, self.partition, record.timestamp, key.decode() if key else None)
        self.events.append(Record(key, value, record.timestamp))
        if dead_letter:
            self.dead_letters.append(_dead_letter(record, fault))

    def _wallet(self, wallet_id: UUID) -> Wallet | None:
        return self.wallets.get(wallet_id) or self._known_wallets[wallet_id]

    def _touch(self, wallet: Wallet | None, before: Wallet | None) -> None:
        assert wallet is not None, "an accepted command leaves a wallet"
        if wallet.metadata and wallet.id not in self.wallets:
            self._touched_bytes += len(_encode_body(wallet.metadata))
        self.wallets[wallet.id] = wallet


def wallet_ids(commands: Sequence[AnyCommand | Unreadable]) -> list[UUID]:
    """Return the wallets that commands name."""
    return [command.wallet_id for command in commands if command.wallet_id is not None]


def command_ids(commands: Sequence[AnyCommand | Unreadable]) -> list[UUID]:
    """Return the ids of clients' commands, forwarded ones included."""
    inner = (_forwarded(command) if type(command) is Forwarded else command for command in commands)
    return [command.id for command in inner if type(command) not in _WITHOUT_RECEIPT]  # type: ignore[union-attr]


def _forwarded(leg: Forwarded) -> AnyCommand | Unreadable:
    return read_command(bytes(leg.command))


_WITHOUT_RECEIPT = (Unreadable, Credit, Refund, Forwarded)


def _dead_letter(record: Any, fault: Unreadable) -> Record:
    headers = [
        ("code", str(fault.code).encode()),
        ("detail", fault.detail.encode()),
        ("topic", record.topic.encode()),
        ("partition", str(record.partition).encode()),
        ("offset", str(record.offset).encode()),
    ]
    value = b"" if record.value is None else record.value
    return Record(record.key, value, record.timestamp, headers)
