"""Deciding a batch: turns the records of one partition into everything that must be written because of them.

A record is decoded (`agents.incoming`), decided (here, by the rules of `domain.wallet`), and what follows is encoded
(`agents.outputs`). Nothing is sent or stored. The result depends only on the records and on the rows of the
tables, never on where a batch begins or ends. A batch that is decided again after a crash therefore gives the
same bytes.
"""

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, cast
from uuid import UUID

import msgspec

from mercuria.agents.incoming import WITHOUT_RECEIPT, Incoming, forwarded_command, incoming, type_of
from mercuria.agents.outputs import Outputs
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
from mercuria.domain.parsing import Unreadable
from mercuria.domain.rejections import DETAILS, Code
from mercuria.domain.transfer import react
from mercuria.domain.wallet import Outcome, Wallet, as_of, build_event, evaluate, evolve
from mercuria.kafka.partitioning import Partitioner, Route
from mercuria.kafka.sealing import Seal
from mercuria.kafka.skips import Skip, Skipped
from mercuria.redis.replies import is_final, reply_of
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

    partitioner: Partitioner
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
        self.outputs = Outputs(partition, installation.partitioner, installation.seal)
        self.receipts: dict[int, Receipt] = {}
        self.taken: list[Taken] = []
        self.skipped: dict[int, Skip] = {}
        self.wallets: dict[int, Wallet] = {}
        self.offset = position.offset
        self.time_ms = 0
        self._first_time_ms = 0
        self.origins = dict(position.origins)
        self._partitioner = installation.partitioner
        self._seal = installation.seal
        self._receipts_lifetime_ms = installation.receipts_lifetime_ms
        self._known_wallets = wallets
        self._known_receipts = receipts
        self._is_behind = is_behind
        self._touched_bytes = 0

    @property
    def position(self) -> AppliedPosition:
        """The position of the partition after this batch."""
        return AppliedPosition(self.offset, self.origins)

    @property
    def is_full(self) -> bool:
        """Whether the batch takes no further record."""
        return self._touched_bytes > MAX_TOUCHED_BYTES or self.outputs.dead_bytes > MAX_DEAD_BYTES

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
        self._take(incoming(record, command, self.partition, self._seal))
        return True

    def _take(self, it: Incoming) -> None:
        kind = type(it.command)
        if kind is Skipped:
            skipped = cast(Skipped, it.command)
            self.skipped[it.record.offset] = skipped.skip
            self._refuse(it, skipped)
        elif kind is Unreadable:
            self._refuse(it, cast(Unreadable, it.command))
        elif kind in _LEGS:
            self._take_leg(it, cast(Leg, it.command))
        else:
            self._take_command(it, cast(ClientCommand, it.command))

    # A client's command: in its place, decided once, and answered again when it comes again.

    def _take_command(self, it: Incoming, command: ClientCommand) -> None:
        route = self._partitioner.of(command.wallet_id)
        key = it.record.key
        if key != route.key:
            self._refuse_command(it, command, Code.KEY_MISMATCH if key else Code.MISSING_KEY)
        elif route.partition != self.partition:
            self._forward(it, command, route)
        else:
            self._decide_once(it, command, route)

    def _forward(self, it: Incoming, command: ClientCommand, route: Route) -> None:
        self.taken.append((type(command), FORWARDED, None))
        origin = Origin(self.partition, it.record.offset)
        leg = Forwarded(origin=origin, wallet_id=command.wallet_id, command=msgspec.Raw(it.record.value))
        self.outputs.send(it, leg, it.record.timestamp, route)

    def _decide_once(self, it: Incoming, command: ClientCommand, route: Route) -> None:
        """Decide a client's command, unless its id has a receipt."""
        number, offset, time_ms = command.id.int, it.record.offset, it.record.timestamp
        as_came, command = command, in_order(command)
        fingerprint = _fingerprint(command)
        receipt = self.receipts.get(number) or self._known_receipts.get(number)
        wallet = self._wallet(command.wallet_id)
        if receipt is None or not self._is_earlier(receipt, offset, time_ms):
            outcome = self._decide(it, command, wallet, Position(self.partition, offset, time_ms), route)
            self.receipts[number] = receipt_of(outcome, offset, time_ms, fingerprint)
        elif receipt.fingerprint == fingerprint:
            self._decide_again(it, command, wallet, receipt, route)
        elif as_came is not command and receipt.fingerprint == _fingerprint(as_came):
            # Earlier versions did not sort metadata, so their receipts and events have it as it came; the repeated
            # event must match.
            self._decide_again(it, as_came, wallet, receipt, route)
        else:
            self._refuse_command(it, command, Code.COMMAND_ID_REUSED, dead_letter=False)

    def _decide_again(
        self, it: Incoming, command: ClientCommand, wallet: Wallet | None, receipt: Receipt, route: Route
    ) -> None:
        """Emit the first answer to a command again."""
        self.taken.append((type(command), DUPLICATE, None))
        first = Position(self.partition, receipt.offset, receipt.time_ms)
        event = build_event(command, wallet, receipt.outcome, first)
        self.outputs.emit(it, event, first, route)
        if it.reply_to is not None:
            after = as_of(wallet, event, first.time_ms) if wallet is not None else None
            reply = reply_of(event, after, first.time_ms, it.reply_to.number, is_replayed=True)
            self.outputs.reply(it, reply)

    # A leg: a worker has sent it, and its origin is counted instead of a receipt.

    def _take_leg(self, it: Incoming, leg: Leg) -> None:
        route = self._partitioner.of(leg.wallet_id)
        if route.partition != self.partition or not self._seal.holds(it.record.value):
            self._refuse_command(it, leg, Code.LEG_NOT_AUTHENTIC)
            return
        source, offset = leg.origin.partition, leg.origin.offset
        if offset <= self.origins.get(source, -1):
            self.taken.append((type(leg), DUPLICATE, None))
            return
        self.origins[source] = offset
        if type(leg) is Forwarded:
            command = forwarded_command(leg)
            if type(command) is Unreadable:
                # A worker of an earlier version, which accepted it, read the command before forwarding it.
                self._refuse(it, command)
            else:
                self._decide_once(it, cast(ClientCommand, command), route)
        else:
            at = Position(self.partition, it.record.offset, it.record.timestamp)
            self._decide(it, cast(Credit | Refund, leg), self._wallet(leg.wallet_id), at, route)

    # What both have in common.

    def _decide(
        self,
        it: Incoming,
        command: ClientCommand | Credit | Refund,
        wallet: Wallet | None,
        at: Position,
        route: Route,
    ) -> Outcome:
        outcome = evaluate(command, wallet)
        self.taken.append((type(command), APPLIED if outcome.code is None else REFUSED, outcome.code))
        event = build_event(command, wallet, outcome, at)
        after = evolve(wallet, event, at.time_ms)
        if outcome.code is None:
            self._touch(after)
        self.outputs.emit(it, event, at, route)
        if it.reply_to is not None and is_final(command, event):
            self.outputs.reply(it, reply_of(event, after, at.time_ms, it.reply_to.number))
        leg = react(command, event, at)
        if leg is not None:
            self.outputs.send(it, leg, at.time_ms, self._partitioner.of(leg.wallet_id))
        return outcome

    def _refuse_command(
        self, it: Incoming, command: ClientCommand | Leg, code: Code, *, dead_letter: bool = True
    ) -> None:
        """Refuse a record that is a command, but not one that a wallet may decide."""
        id_ = getattr(command, "id", None)
        fault = Unreadable(code, DETAILS[code], id_, type_of(command), command.wallet_id)
        self._refuse(it, fault, dead_letter=dead_letter)

    def _refuse(self, it: Incoming, fault: Unreadable, *, dead_letter: bool = True) -> None:
        self.taken.append((fault.command_type, DEAD_LETTER if dead_letter else REFUSED, fault.code))
        self.outputs.refuse(it, fault, dead_letter=dead_letter)

    # Receipts and wallets, as they are after the records that were taken before.

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
            command = forwarded_command(command)
        if type(command) in WITHOUT_RECEIPT:
            return False
        number = command.id.int  # type: ignore[union-attr]  # clients' commands have one
        receipt = self.receipts.get(number) or self._known_receipts.get(number)
        return (
            receipt is not None
            and receipt.offset < record.offset
            and not self._is_earlier(receipt, record.offset, record.timestamp)
        )

    def _is_earlier(self, receipt: Receipt, offset: int, time_ms: int) -> bool:
        """Return whether a receipt is valid and belongs to an earlier record.

        After a crash, a receipt may belong to this very record or to a later one.
        """
        return receipt.offset < offset and time_ms - receipt.time_ms <= self._receipts_lifetime_ms

    def _wallet(self, wallet_id: UUID) -> Wallet | None:
        number = wallet_id.int
        return self.wallets.get(number) or self._known_wallets[number]

    def _touch(self, wallet: Wallet | None) -> None:
        assert wallet is not None, "an accepted command leaves a wallet"
        number = wallet.id.int
        if wallet.metadata and number not in self.wallets:
            self._touched_bytes += len(_encode_body(wallet.metadata))
        self.wallets[number] = wallet


def _fingerprint(command: ClientCommand) -> bytes:
    return blake2b(_encode_body(command), digest_size=FINGERPRINT_BYTES).digest()
