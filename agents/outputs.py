"""Encoding: the records and replies that a batch emits, each with the trace and the reply address of its cause."""

from collections import defaultdict

import msgspec

from mercuria.agents.dead_letters import dead_letter_of
from mercuria.agents.incoming import Incoming
from mercuria.domain.commands import Leg, Position
from mercuria.domain.events import CommandRejected, Event
from mercuria.domain.parsing import Unreadable
from mercuria.kafka.cloudevents import envelop
from mercuria.kafka.partitioning import Partitioner, Route
from mercuria.kafka.producer import Record
from mercuria.kafka.sealing import Seal
from mercuria.redis.replies import Reply

_encode_json = msgspec.json.Encoder().encode


class Outputs:
    """What the records of one partition lead to."""

    def __init__(self, partition: int, partitioner: Partitioner, seal: Seal) -> None:
        self.events: list[Record] = []
        self.legs: defaultdict[int, list[Record]] = defaultdict(list)
        """By partition of the command topic."""
        self.dead_letters: list[Record] = []
        self.dead_bytes = 0
        """The size of the dead letters' keys and values."""
        self.replies: list[tuple[str, Reply]] = []
        """With the node that each goes to."""
        self._partition = partition
        self._partitioner = partitioner
        self._seal = seal

    def emit(self, cause: Incoming, event: Event, at: Position, route: Route) -> None:
        """Emit the event of a wallet."""
        value = envelop(event, self._partition, at.time_ms)
        self.events.append(Record(route.key, value, at.time_ms, cause.trace))

    def send(self, cause: Incoming, leg: Leg, time_ms: int, route: Route) -> None:
        """Send a leg to the wallet that it is for.

        A client that waits for the reply waits for that of the last leg.
        """
        value = self._seal.close(_encode_json(leg))
        headers = cause.trace
        if cause.reply_to is not None:
            headers = [cause.reply_to.header(value, self._seal), *headers]
        self.legs[route.partition].append(Record(route.key, value, time_ms, headers))

    def reply(self, cause: Incoming, reply: Reply) -> None:
        """Reply to the node that waits for the outcome of a record."""
        assert cause.reply_to is not None
        self.replies.append((cause.reply_to.node, reply))

    def refuse(self, cause: Incoming, fault: Unreadable, *, dead_letter: bool) -> None:
        """Answer a record that no wallet decides, and keep it unchanged as a dead letter."""
        record = cause.record
        event = CommandRejected(
            offset=record.offset,
            code=fault.code,
            detail=fault.detail,
            command_id=fault.command_id,
            command_type=fault.command_type,
            wallet_id=fault.wallet_id,
        )
        key = self._partitioner.of(fault.wallet_id).key if fault.wallet_id else None
        value = envelop(event, self._partition, record.timestamp)
        self.events.append(Record(key, value, record.timestamp, cause.trace))
        if cause.reply_to is not None:
            number, id_ = cause.reply_to.number, fault.command_id
            self.reply(cause, Reply(number, code=fault.code, detail=fault.detail, command_id=id_))
        if dead_letter:
            letter = dead_letter_of(self._partition, record, fault)
            self.dead_letters.append(letter)
            self.dead_bytes += len(letter.key or b"") + len(letter.value or b"")
