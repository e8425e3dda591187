"""Which events there have to be: one for each record of the command topic that calls for one, and no other.

A client's command is answered under its own offset, its retries under the first one's; a leg that was sent again is not
answered at all.
"""

from collections import defaultdict
from collections.abc import Set
from enum import Enum
from struct import Struct as Packing
from typing import NamedTuple, cast

import msgspec

from mercuria.domain.commands import ClientCommand, Credit, Forwarded, Leg, Refund, in_order
from mercuria.domain.parsing import Unreadable, read_command, read_leniently
from mercuria.domain.rejections import Code
from mercuria.kafka.partitioning import Partitioner
from mercuria.kafka.sealing import Seal
from tests.harness.audit.violations import Violations

DAY_MS = 24 * 60 * 60 * 1000
DEFAULT_RECEIPTS_LIFETIME_MS = 7 * DAY_MS

UNANSWERED = "Command {} was never answered."
UNEXPECTED = "Event {} answers nothing: no command there calls for one."
REUSED = "Command {}: its event is wrong about whether its id was used before."
LOST = "Command {}, in another partition than its wallet's, got lost."

_LEGS = (Credit, Refund, Forwarded)

Place = tuple[int, int]
"""A partition and an offset."""


class CommandRecord(NamedTuple):
    """A record of the command topic."""

    partition: int
    offset: int
    time_ms: int
    key: bytes | None
    value: bytes | None

    @property
    def place(self) -> Place:
        """Where it is; its event has the same partition and names the offset."""
        return self.partition, self.offset


class ExpectedEvents:
    """Compares the events that the commands call for with those that are there."""

    def __init__(
        self,
        partitions: int,
        seal: Seal | None,
        receipts_lifetime_ms: int,
        skipped: Set[Place] = frozenset(),
    ) -> None:
        self.commands = 0
        self._skipped = skipped
        self._has_commands = False
        self._partitioner = Partitioner(partitions)
        self._seal = seal
        self._receipts = _Receipts(receipts_lifetime_ms)
        # What only one side has so far: a command without its event, or an event without its command.
        self._unanswered: set[Place] = set()
        self._unexpected: set[Place] = set()
        self._reused: set[Place] = set()
        self._unforwarded: set[Place] = set()
        # What may be answered or not, depending on the version that decided it, and is not answered so far.
        self._permitted: set[Place] = set()
        # Up to which offset each side has come in each partition.
        self._commands_to: dict[int, int] = {}
        self._events_to: dict[int, int] = {}
        self._origins: dict[tuple[int, int], int] = {}

    def take_command(self, record: CommandRecord) -> None:
        """Take a record of the command topic."""
        self._has_commands = True
        self._commands_to[record.partition] = record.offset
        if record.place in self._skipped:
            # Without a receipt: its id is as free as before.
            self._expect(record)
            return
        command = read_command(record.value)
        kind = type(command)
        if kind is Unreadable:
            self._take_unreadable(record, cast(Unreadable, command))
        elif kind in _LEGS:
            self._take_leg(record, cast(Leg, command))
        else:
            self._take_client_command(record, cast(ClientCommand, command))

    def take_event(self, partition: int, offset: int, code: Code | None) -> None:
        """Take an event that was not there before; `code` is a rejection's."""
        place = (partition, offset)
        self._events_to[partition] = max(offset, self._events_to.get(partition, -1))
        if place in self._permitted:
            self._permitted.remove(place)
            return
        if place in self._unanswered:
            self._unanswered.remove(place)
        else:
            self._unexpected.add(place)
        if code is Code.COMMAND_ID_REUSED:
            # Each side toggles it, so it is empty where both agree.
            self._reused ^= {place}

    def settle(self, violations: Violations) -> None:
        """Report once what is missing up to where both logs have been read: a partition is answered in its order."""
        ends = {
            partition: min(offset, self._events_to.get(partition, -1))
            for partition, offset in self._commands_to.items()
        }
        for places, sentence in self._open_places():
            settled = {place for place in places if place[1] <= ends.get(place[0], -1)}
            _report(settled, sentence, violations)
            places -= settled

    def close(self, violations: Violations) -> None:
        """Report what is missing at the end of the logs."""
        if not self._has_commands:
            return
        for places, sentence in self._open_places():
            _report(places, sentence, violations)
        _report(self._unforwarded, LOST, violations)

    def _open_places(self) -> tuple[tuple[set[Place], str], ...]:
        return (self._unanswered, UNANSWERED), (self._unexpected, UNEXPECTED), (self._reused, REUSED)

    def _take_unreadable(self, record: CommandRecord, fault: Unreadable) -> None:
        if fault.code is Code.MALFORMED_COMMAND and read_leniently(record.value) is not None:
            # A name stands twice. Such commands were decided once, and forwarded, and recognised when they came again.
            self._permit(record)
        else:
            self._expect(record)

    def _take_client_command(self, record: CommandRecord, command: ClientCommand) -> None:
        route = self._partitioner.of(command.wallet_id)
        if record.key != route.key:
            self._expect(record)
        elif route.partition == record.partition:
            self._take_once(record, command)
        else:
            self._unforwarded ^= {record.place}

    def _take_leg(self, record: CommandRecord, leg: Leg) -> None:
        if not self._is_authentic(record, leg):
            self._expect(record)
            return
        source, offset = leg.origin.partition, leg.origin.offset
        if offset <= self._origins.get((record.partition, source), -1):
            return
        self._origins[record.partition, source] = offset
        if type(leg) is Forwarded:
            self._take_forwarded(record, leg)
        else:
            self._expect(record)

    def _take_forwarded(self, record: CommandRecord, leg: Forwarded) -> None:
        command = read_command(bytes(leg.command))
        if type(command) is Unreadable:
            self._take_unreadable(record._replace(value=bytes(leg.command)), command)
            return
        self._unforwarded ^= {(leg.origin.partition, leg.origin.offset)}
        self._take_once(record, cast(ClientCommand, command))

    def _is_authentic(self, record: CommandRecord, leg: Leg) -> bool:
        if self._partitioner.of(leg.wallet_id).partition != record.partition:
            return False
        return self._seal is None or self._seal.holds(cast(bytes, record.value))

    def _take_once(self, record: CommandRecord, command: ClientCommand) -> None:
        """Take a command in its wallet's partition: a retry calls for no event of its own."""
        self.commands += 1
        use = self._receipts.use(record, command)
        if use is _Use.FIRST:
            self._expect(record)
        elif use is _Use.OTHER_COMMAND:
            self._reused ^= {record.place}
            self._expect(record)
        elif use is _Use.REORDERED_RETRY:
            # Once, that was refused as another command.
            self._permit(record)

    def _permit(self, record: CommandRecord) -> None:
        """Accept any event for a record, and none as well."""
        self._reused.discard(record.place)
        if record.place in self._unexpected:
            self._unexpected.remove(record.place)
        else:
            self._permitted.add(record.place)

    def _expect(self, record: CommandRecord) -> None:
        if record.place in self._unexpected:
            self._unexpected.remove(record.place)
        else:
            self._unanswered.add(record.place)


def _report(places: set[Place], sentence: str, violations: Violations) -> None:
    for partition, offset in sorted(places):
        violations.add(sentence.format(f"{partition}-{offset}"))


class _Use(Enum):
    """What the use of a command id is, compared with its first one."""

    FIRST = 1
    RETRY = 2
    REORDERED_RETRY = 3
    """The same command with its metadata in another order."""
    OTHER_COMMAND = 4


class _Receipts:
    """The command ids of each partition, and with which content they were used first."""

    _PACKING = Packing(">qqq")  # Of time, content and content as it came: a soak has millions of them.

    def __init__(self, lifetime_ms: int) -> None:
        self._lifetime_ms = lifetime_ms
        self._receipts: defaultdict[int, dict[int, bytes]] = defaultdict(dict)

    def use(self, record: CommandRecord, command: ClientCommand) -> _Use:
        """Return what this use of the command's id is, and remember the first one."""
        as_came, content = hash(_encode_body(command)), hash(_encode_body(in_order(command)))
        receipts = self._receipts[record.partition]
        packed = receipts.get(command.id.int)
        if packed is not None:
            time_ms, first_content, first_as_came = self._PACKING.unpack(packed)
            if record.time_ms - time_ms <= self._lifetime_ms:
                if content != first_content:
                    return _Use.OTHER_COMMAND
                return _Use.RETRY if as_came == first_as_came else _Use.REORDERED_RETRY
        receipts[command.id.int] = self._PACKING.pack(record.time_ms, content, as_came)
        return _Use.FIRST


_encode_body = msgspec.msgpack.Encoder(uuid_format="bytes").encode
