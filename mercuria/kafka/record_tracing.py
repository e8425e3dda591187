"""The log lines and trace spans of records, one each time that a reader has finished with a record.

They are produced only if the log level asks for them or the record is traced.
"""

import logging
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple
from uuid import UUID

from mercuria.domain.commands import Forwarded
from mercuria.domain.parsing import read_command
from mercuria.kafka.propagation import (
    REQUEST_ID,
    TRACEPARENT,
    is_sampled,
    request_id_in,
    span_id,
    well_formed,
)
from mercuria.observability.tracing import tracing

log = logging.getLogger(__name__)


class Ids(NamedTuple):
    """The command that a record comes from, and its transaction if the command moves money."""

    command_id: UUID | None
    transaction_id: UUID | None


class RecordTracing(NamedTuple):
    """Logs and traces the records of a topic that one reader has finished.

    Args:
        reader: the agent or projection.
        operation: its name in traces.
        message: the log message for a finished record.
        ids: reads the ids from a record's value.
    """

    reader: str
    operation: str
    topic: str
    message: str
    ids: Callable[[bytes], Ids]

    def done(self, partition: int, records: Iterable[Any], took_s: float) -> None:
        """Report that records of a partition are finished, which took `took_s` for all of them."""
        is_logged, is_traced = log.isEnabledFor(logging.DEBUG), tracing.tracer is not None
        if not (is_logged or is_traced):
            return
        for record in records:
            if is_logged:
                self._log(partition, record)
            if is_traced and record.headers:
                self._trace(partition, record, took_s)

    def _trace(self, partition: int, record: Any, took_s: float) -> None:
        headers = well_formed(record.headers)
        parent = headers.get(TRACEPARENT)
        if parent is None or not is_sampled(parent):
            return
        attributes: dict[str, str | int] = {
            "messaging.system": "kafka",
            "messaging.operation.type": "process",
            "messaging.operation.name": self.operation,
            "messaging.destination.name": self.topic,
            "messaging.destination.partition.id": str(partition),
            "messaging.kafka.offset": record.offset,
        }
        for name, value in self.ids(record.value)._asdict().items():
            if value is not None:
                attributes[f"mercuria.{name}"] = str(value)
        if REQUEST_ID in headers:
            attributes["mercuria.request_id"] = headers[REQUEST_ID].decode("ascii")
        id_ = span_id(parent, self.reader, partition, record.offset)
        tracing.add_record(f"{self.operation} {self.topic}", id_, headers.items(), took_s, attributes)

    def _log(self, partition: int, record: Any) -> None:
        ids = self.ids(record.value)
        fields = {
            "request_id": request_id_in(record.headers),
            "command_id": ids.command_id,
            "transaction_id": ids.transaction_id,
            "reader": self.reader,
            "topic": self.topic,
            "partition": partition,
            "offset": record.offset,
        }
        known = {name: value for name, value in fields.items() if value is not None}
        log.debug(self.message, extra=known)


def ids_of_command(value: bytes) -> Ids:
    """Return the ids of the record of a command or of a leg."""
    command: Any = read_command(value)
    if type(command) is Forwarded:
        command = read_command(bytes(command.command))
    # A record that cannot be decoded may still have an id.
    id_ = getattr(command, "id", None) or getattr(command, "command_id", None)
    return Ids(id_, id_ if hasattr(command, "amount") else None)


def ids_of_event(event: Any) -> Ids:
    """Return the ids of an event. A command that moves money has the id of its transaction."""
    transaction_id = getattr(event, "transaction_id", None)
    return Ids(getattr(event, "command_id", None) or transaction_id, transaction_id)
