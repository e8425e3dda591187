"""Deciding a batch: turns the records of one partition into everything that must be written because of them.

Nothing is sent or stored here. The result depends only on the records and on the rows of the tables, never on
where a batch begins or ends. A batch that is decided again after a crash therefore gives the same bytes.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from hashlib import blake2b
from typing import Any, cast
from uuid import UUID

import msgspec

from mercuria.agents.dead_letters import dead_letter_of
from mercuria.domain.commands import (
    AnyCommand,
    ClientCommand,
    Credit,
    Forwarded,
    Leg,
    Origin,
    Position,
    Refund,
    in_order,
)
from mercuria.domain.events import CommandRejected, Event
from mercuria.domain.parsing import Unreadable, read_command
from mercuria.domain.rejections import DETAILS, Code
from mercuria.domain.transfer import react
from mercuria.domain.wallet import Outcome, Wallet, as_of, evolve, tell, weigh
from mercuria.kafka.cloudevents import envelop
from mercuria.kafka.partitioning import Home, Homes
from mercuria.kafka.producer import Record
from mercuria.kafka.propagation import NO_TRACE, Trace, propagated
from mercuria.kafka.sealing import Seal
from mercuria.kafka.skips import Skip, Skipped
from mercuria.redis.replies import Address, Reply, address_in, is_final, reply_of
from mercuria.tables.balance_rows import AppliedPosition
from mercuria.tables.receipts import FINGERPRINT_BYTES, Receipt, receipt_of

MAX_TOUCHED_BYTES = 1024 * 1024
"""A batch ends early when the metadata of its wallets exceeds this size.

The rows of a batch must fit into one record batch.
"""

MAX_DEAD_BYTES = 16 * 1024 * 1024
"""A batch ends early when its dead letters exceed this size.

A small compressed record batch may hold a thousand large records.
"""

_encode_json = msgspec.json.Encoder().encode
_encode_body = msgspec.msgpack.Encoder(uuid_format="bytes").encode

_LEGS = (Credit, Refund, Forwarded)


APPLIED, REFUSED, DUPLICATE, DEAD_LETTER, FORWARDED = (
    "applied",
    "refused",
    "duplicate",
    "dead_letter",
    "forwarded",
)
"""The possible results of a record of the command topic."""

Taken = tuple[type | str | None, str, Code | None]
"""The command type of a record (a text if no wallet decides it), its result, and the code of a refusal."""


class Installation(msgspec.Struct, frozen=True):
    """The settings that all workers of an installation share."""

    homes: Homes
    receipts_lifetime_ms: int
    seal: Seal


class Batch:
    """The decisions on some records of one partition.

    Args:
        wallets: by the number of its id, each wallet that the commands name; None for a wallet that does not
            exist.
        receipts: by the number of its id, the receipt of each command that has one.
        is_behind: whether the previous batch is not persisted yet, so that a crash would have it decided
            again.
    """

    def __init__(
        self,
        installation: Installation,
        partition: int,
        position: AppliedPosition,
        wallets: Mapping[int, Wallet | None],
        receipts: Mapping[int, Receipt],
        *,
        is_behind: bool = False,
    ) -> None:
        self.partition = partition
        self.events: list[Record] = []
        self.legs: defaultdict[int, list[Record]] = defaultdict(list)
        self.dead_letters: list[Record] = []
        self.receipts: dict[int, Receipt] = {}
        self.replies: list[tuple[str, Reply]] = []
        self.taken: list[Taken] = []
        self.skipped: dict[int, Skip] = {}
        self.wallets: dict[int, Wallet] = {}
        self.offset = position.offset
        self.time_ms = 0
        self._first_time_ms = 0
        self.origins = dict(position.origins)
        self._homes = installation.homes
        self._seal = installation.seal
        self._receipts_lifetime_ms = installation.receipts_lifetime_ms
        self._known_wallets = wallets
        self._known_receipts = receipts
        self._is_behind = is_behind
        self._touched_bytes = 0
        self._dead_bytes = 0
        self._reply_to: Address | None = None
        self._trace: Trace = NO_TRACE

    @property
    def position(self) -> AppliedPosition:
        """The position of the partition after this batch."""
        return AppliedPosition(self.offset, self.origins)

    @property
    def is_full(self) -> bool:
        """Whether the batch takes no further record."""
        return self._touched_bytes > MAX_TOUCHED_BYTES or self._dead_bytes > MAX_DEAD_BYTES

    def take(self, record: Any, command: AnyCommand | Unreadable) -> bool:
        """Decide one record, which holds `command`.

        Return False if the record is not taken and must begin the next batch.
        """
        if self.time_ms == 0:
            self._first_time_ms = record.timestamp
        is_exposed = self.time_ms > 0 or self._is_behind
        if (
            is_exposed
            and self._may_replace_receipt(record.timestamp)
            and self._replaces_receipt(record, command)
        ):
            return False
        self.offset, self.time_ms = record.offset, record.timestamp
        if type(command) is Skipped:
            self._skip(record, command)
            return True
        headers = record.headers
        if headers:
            self._reply_to = address_in(headers, record.value, self._seal)
            self._trace = propagated(headers, "wallets", self.partition, record.offset)
        else:
            self._reply_to, self._trace = None, NO_TRACE
        kind = type(command)
        if kind is Unreadable:
            self._refuse(record, cast(Unreadable, command))
        elif kind in _LEGS:
            self._take_leg(record, cast(Leg, command))
        else:
            self._take_command(record, cast(ClientCommand, command))
        return True

    def _may_replace_receipt(self, time_ms: int) -> bool:
        """Return whether a record may reuse an id. This cheap check rules out all but a few records."""
        return bool(self._known_receipts) or time_ms - self._first_time_ms > self._receipts_lifetime_ms

    def _replaces_receipt(self, record: Any, command: AnyCommand | Unreadable) -> bool:
        """Return whether a command reuses an id whose receipt has expired.

        Receipts are persisted before the position. If the new receipt were persisted and the worker then
        crashed, an earlier retry in the same batch would no longer find the old receipt, and would be decided
        as a new command.
        """
        if type(command) is Forwarded:
            command = _forwarded(command)
        if type(command) in _WITHOUT_RECEIPT:
            return False
        number = command.id.int  # type: ignore[union-attr]  # clients' commands have one
        receipt = self.receipts.get(number) or self._known_receipts.get(number)
        return (
            receipt is not None
            and receipt.offset < record.offset
            and not self._is_earlier(receipt, record.offset, record.timestamp)
        )

    def _take_command(self, record: Any, command: ClientCommand) -> None:
        home = self._homes.of(command.wallet_id)
        if record.key != home.key:
            self._refuse_readable(record, command, Code.KEY_MISMATCH if record.key else Code.MISSING_KEY)
        elif home.partition != self.partition:
            self._forward(record, command, home)
        else:
            self._decide_once(record, command, home)

    def _take_leg(self, record: Any, leg: Leg) -> None:
        home = self._homes.of(leg.wallet_id)
        if home.partition != self.partition or not self._seal.holds(record.value):
            self._refuse_readable(record, leg, Code.LEG_NOT_AUTHENTIC)
            return
        source, offset = leg.origin.partition, leg.origin.offset
        if offset <= self.origins.get(source, -1):
            self.taken.append((type(leg), DUPLICATE, None))
            return
        self.origins[source] = offset
        if type(leg) is Forwarded:
            command = _forwarded(leg)
            if type(command) is Unreadable:
                # A worker of an earlier version, which accepted it, read the command before forwarding it.
                self._refuse(record, command)
            else:
                self._decide_once(record, cast(ClientCommand, command), home)
        else:
            at = Position(self.partition, record.offset, record.timestamp)
            self._decide(cast(Credit | Refund, leg), self._wallet(leg.wallet_id), at, home)

    def _decide_once(self, record: Any, command: ClientCommand, home: Home) -> None:
        """Decide a client's command, unless its id has a receipt."""
        number, offset, time_ms = command.id.int, record.offset, record.timestamp
        as_came, command = command, in_order(command)
        fingerprint = _fingerprint(command)
        receipt = self.receipts.get(number) or self._known_receipts.get(number)
        wallet = self._wallet(command.wallet_id)
        if receipt is None or not self._is_earlier(receipt, offset, time_ms):
            outcome = self._decide(command, wallet, Position(self.partition, offset, time_ms), home)
            self.receipts[number] = receipt_of(outcome, offset, time_ms, fingerprint)
        elif receipt.fingerprint == fingerprint:
            self._decide_again(command, wallet, receipt, home)
        elif as_came is not command and receipt.fingerprint == _fingerprint(as_came):
            # Earlier versions did not sort metadata, so their receipts and events have it as it came; the repeated
            # event must match.
            self._decide_again(as_came, wallet, receipt, home)
        else:
            self._refuse_readable(record, command, Code.COMMAND_ID_REUSED, dead_letter=False)

    def _decide_again(
        self, command: ClientCommand, wallet: Wallet | None, receipt: Receipt, home: Home
    ) -> None:
        """Emit the first answer to a command again."""
        self.taken.append((type(command), DUPLICATE, None))
        first = Position(self.partition, receipt.offset, receipt.time_ms)
        event = tell(command, wallet, receipt.outcome, first)
        self._emit(event, first, home)
        if self._reply_to is not None:
            after = as_of(wallet, event, first.time_ms) if wallet is not None else None
            self._reply(reply_of(event, after, first.time_ms, self._reply_to.number, is_replayed=True))

    def _is_earlier(self, receipt: Receipt, offset: int, time_ms: int) -> bool:
        """Return whether a receipt is valid and belongs to an earlier record.

        After a crash, a receipt may belong to this very record or to a later one.
        """
        return receipt.offset < offset and time_ms - receipt.time_ms <= self._receipts_lifetime_ms

    def _decide(
        self, command: ClientCommand | Credit | Refund, wallet: Wallet | None, at: Position, home: Home
    ) -> Outcome:
        outcome = weigh(command, wallet)
        self.taken.append((type(command), APPLIED if outcome.code is None else REFUSED, outcome.code))
        event = tell(command, wallet, outcome, at)
        after = evolve(wallet, event, at.time_ms)
        if outcome.code is None:
            self._touch(after)
        self._emit(event, at, home)
        if self._reply_to is not None and is_final(command, event):
            self._reply(reply_of(event, after, at.time_ms, self._reply_to.number))
        leg = react(command, event, at)
        if leg is not None:
            self._send(leg, at.time_ms, self._homes.of(leg.wallet_id))
        return outcome

    def _forward(self, record: Any, command: ClientCommand, home: Home) -> None:
        self.taken.append((type(command), FORWARDED, None))
        origin = Origin(self.partition, record.offset)
        leg = Forwarded(origin=origin, wallet_id=command.wallet_id, command=msgspec.Raw(record.value))
        self._send(leg, record.timestamp, home)

    def _send(self, leg: Leg, time_ms: int, home: Home) -> None:
        # A client that waits for the reply waits for that of the last leg.
        value = self._seal.close(_encode_json(leg))
        headers = self._trace
        if self._reply_to is not None:
            headers = [self._reply_to.header(value, self._seal), *headers]
        self.legs[home.partition].append(Record(home.key, value, time_ms, headers))

    def _emit(self, event: Event, at: Position, home: Home) -> None:
        self.events.append(
            Record(home.key, envelop(event, self.partition, at.time_ms), at.time_ms, self._trace)
        )

    def _refuse_readable(
        self, record: Any, command: ClientCommand | Leg, code: Code, dead_letter: bool = True
    ) -> None:
        """Refuse a record that is a command, but not one that a wallet may decide."""
        kind = str(type(command).__struct_config__.tag)
        id_ = getattr(command, "id", None)
        self._refuse(record, Unreadable(code, DETAILS[code], id_, kind, command.wallet_id), dead_letter)

    def _refuse(self, record: Any, fault: Unreadable, dead_letter: bool = True) -> None:
        """Answer a record that no wallet decides, and keep it unchanged as a dead letter."""
        self.taken.append((fault.command_type, DEAD_LETTER if dead_letter else REFUSED, fault.code))
        event = CommandRejected(
            offset=record.offset,
            code=fault.code,
            detail=fault.detail,
            command_id=fault.command_id,
            command_type=fault.command_type,
            wallet_id=fault.wallet_id,
        )
        key = self._homes.of(fault.wallet_id).key if fault.wallet_id else None
        value = envelop(event, self.partition, record.timestamp)
        self.events.append(Record(key, value, record.timestamp, self._trace))
        if self._reply_to is not None:
            number, id_ = self._reply_to.number, fault.command_id
            self._reply(Reply(number, code=fault.code, detail=fault.detail, command_id=id_))
        if dead_letter:
            letter = dead_letter_of(self.partition, record, fault)
            self.dead_letters.append(letter)
            self._dead_bytes += len(letter.key or b"") + len(letter.value or b"")

    def _skip(self, record: Any, skipped: Skipped) -> None:
        """Refuse a record that an operator has skipped, and read no more of it than necessary."""
        self.skipped[record.offset] = skipped.skip
        self._reply_to, self._trace = None, NO_TRACE
        with suppress(Exception):
            # The record's defect may be in its headers.
            self._reply_to = address_in(record.headers, record.value, self._seal)
        self._refuse(record, skipped)

    def _reply(self, reply: Reply) -> None:
        assert self._reply_to is not None
        self.replies.append((self._reply_to.node, reply))

    def _wallet(self, wallet_id: UUID) -> Wallet | None:
        number = wallet_id.int
        return self.wallets.get(number) or self._known_wallets[number]

    def _touch(self, wallet: Wallet | None) -> None:
        assert wallet is not None, "an accepted command leaves a wallet"
        number = wallet.id.int
        if wallet.metadata and number not in self.wallets:
            self._touched_bytes += len(_encode_body(wallet.metadata))
        self.wallets[number] = wallet


def wallet_ids(commands: Sequence[AnyCommand | Unreadable]) -> list[UUID]:
    """Return the ids of the wallets that commands name."""
    return [command.wallet_id for command in commands if command.wallet_id is not None]


def command_ids(commands: Sequence[AnyCommand | Unreadable]) -> list[UUID]:
    """Return the ids of clients' commands, forwarded ones included."""
    inner = (_forwarded(command) if type(command) is Forwarded else command for command in commands)
    return [command.id for command in inner if type(command) not in _WITHOUT_RECEIPT]  # type: ignore[union-attr]


def _fingerprint(command: ClientCommand) -> bytes:
    return blake2b(_encode_body(command), digest_size=FINGERPRINT_BYTES).digest()


def _forwarded(leg: Forwarded) -> AnyCommand | Unreadable:
    return read_command(bytes(leg.command))


_WITHOUT_RECEIPT = (Unreadable, Skipped, Credit, Refund, Forwarded)
