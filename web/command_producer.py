"""The command producer: sends commands to Kafka, and limits how many of them are unacknowledged."""

import asyncio
import logging
from functools import cached_property
from uuid import UUID

from aiohttp.web import Request

from mercuria.domain.commands import ClientCommand
from mercuria.http.gate import REQUEST_ID, SPAN
from mercuria.kafka.partitioning import Partitioner
from mercuria.kafka.producer import Record
from mercuria.kafka.propagation import request_id_header
from mercuria.kafka.sealing import Seal
from mercuria.observability.tracing import tracing
from mercuria.redis.replies import Waiting
from mercuria.topics import WALLET_COMMANDS
from mercuria.worker import App

MAX_UNACKNOWLEDGED = 4096
"""How many commands may be unacknowledged.

With more, the producer has stopped, and memory must not fill up.
"""

log = logging.getLogger(__name__)


class CommandProducer:
    """Sends the commands of one app's views."""

    def __init__(self, app: App, partitioner: Partitioner) -> None:
        self._app = app
        self._partitioner = partitioner
        self._unacknowledged: set[asyncio.Future[int]] = set()

    @property
    def is_full(self) -> bool:
        """Whether no further command may be sent at the moment."""
        return len(self._unacknowledged) >= MAX_UNACKNOWLEDGED

    def send(
        self, command: ClientCommand, value: bytes, waiting: Waiting, request: Request
    ) -> asyncio.Future[int]:
        """Send a command to its wallet's partition. The future ends when Kafka has acknowledged it.

        Args:
            value: the command as JSON.
            waiting: where its reply is expected.
        """
        key, partition = self._partitioner.of(command.wallet_id)
        headers = [waiting.address.header(value, self._seal), request_id_header(request[REQUEST_ID])]
        if tracing.tracer is not None and SPAN in request:
            headers += tracing.headers_of(request[SPAN])
        _log_sent(request[REQUEST_ID], command.id, partition)
        record = Record(key, value, None, headers)
        acknowledged = self._app.batch_producer.enqueue(partition, WALLET_COMMANDS, partition, [record])
        self._unacknowledged.add(acknowledged)
        acknowledged.add_done_callback(self._on_acknowledged)
        return acknowledged

    @cached_property
    def _seal(self) -> Seal:
        return Seal(self._app.settings.leg_key())

    def _on_acknowledged(self, future: asyncio.Future[int]) -> None:
        self._unacknowledged.discard(future)
        if not future.cancelled():
            future.exception()  # Retrieve the exception: the caller may have stopped waiting for the result.


def _log_sent(request_id: str, command_id: UUID, partition: int) -> None:
    if log.isEnabledFor(logging.DEBUG):
        log.debug(
            "A command is sent.",
            extra={
                "request_id": request_id,
                "command_id": str(command_id),
                "topic": WALLET_COMMANDS,
                "partition": partition,
            },
        )
