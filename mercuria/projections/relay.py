"""The relay: publishes a projection's outbox to Kafka. Delivery is at-least-once and ordered per partition.

The relay receives an event only after it is in the outbox. So the process can be killed at any time: the next
owner of the partition finds the event there, and sends it again. A partition has one request in flight, so
that a later event cannot overtake a failed one.
"""

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Iterable, Sequence

import msgspec
from msgspec import Struct, field

from mercuria.kafka.producer import Record

FULL_BYTES = 32 * 1024 * 1024
"""The size of waiting events from which on the projection waits, too."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Record]).decode


class OutboxBatch(Struct, frozen=True):
    """The events that one transaction has emitted in a partition, with the numbers `first` to `sequence`.

    `since_s` is when this process received the batch, by its monotonic clock.
    """

    partition: int
    first: int
    sequence: int
    records: Sequence[Record]
    size: int
    since_s: float = field(default_factory=time.monotonic)


class Relay:
    """The queue of outbox batches to publish.

    Args:
        send: appends records to a partition of the next topic, and returns after Kafka has acknowledged them.
        on_published: called when events may be removed from the outbox.
    """

    def __init__(
        self,
        send: Callable[[int, Sequence[Record]], Awaitable[object]],
        on_published: Callable[[], None] = lambda: None,
    ) -> None:
        self.published: dict[int, int] = {}
        """By partition, the number up to which Kafka has the events that the outbox may still hold."""
        self.on_published = on_published
        self._send = send
        self._waiting: defaultdict[int, deque[OutboxBatch]] = defaultdict(deque)
        self._sending: dict[int, asyncio.Task[None]] = {}
        self._room = asyncio.Event()
        self._failed: asyncio.Future[None] | None = None
        self._waiting_bytes = 0

    @property
    def waiting(self) -> int:
        """The number of batches that are waiting or in flight."""
        return sum(map(len, self._waiting.values()))

    @property
    def events(self) -> int:
        """The number of events that are waiting or in flight."""
        return sum(len(batch.records) for waiting in self._waiting.values() for batch in waiting)

    @property
    def oldest_s(self) -> float:
        """The age of the oldest batch; 0 if there is none."""
        since_s = [waiting[0].since_s for waiting in self._waiting.values() if waiting]
        return time.monotonic() - min(since_s) if since_s else 0.0

    @property
    def has_failed(self) -> bool:
        """Whether sending to Kafka has failed."""
        return self._failed is not None

    def take(self, batches: Iterable[OutboxBatch]) -> None:
        """Send batches after the previous ones."""
        for batch in batches:
            waiting = self._waiting[batch.partition]
            assert not waiting or batch.first == waiting[-1].sequence + 1, (
                "what is emitted follows what was emitted"
            )
            waiting.append(batch)
            self._waiting_bytes += batch.size
            self._begin(batch.partition)

    def replace(self, partition: int, batches: Iterable[OutboxBatch]) -> None:
        """Replace the queue of a partition with the content of its outbox."""
        self.forget(partition)
        self.take(batches)

    def forget(self, partition: int) -> None:
        """Drop the queue of a partition. A request in flight may still arrive, which does no harm."""
        for batch in self._waiting.pop(partition, ()):
            self._waiting_bytes -= batch.size
        self.published.pop(partition, None)
        self._look_for_room()

    def has_left(self, published: dict[int, int]) -> None:
        """Note that the outbox no longer holds the events up to these numbers."""
        for partition, sequence in published.items():
            if self.published.get(partition) == sequence:
                del self.published[partition]

    async def room(self) -> None:
        """Wait until the queue has room.

        Raises:
            Exception: the error with which sending to Kafka has failed.
        """
        if self._failed is not None:
            await self._failed
        self._look_for_room()
        await self._room.wait()
        if self._failed is not None:
            await self._failed

    def _begin(self, partition: int) -> None:
        sending = self._sending.get(partition)
        if sending is None or sending.done():
            self._sending[partition] = asyncio.get_running_loop().create_task(self._run(partition))

    async def _run(self, partition: int) -> None:
        while waiting := self._waiting.get(partition):
            batches = tuple(waiting)
            try:
                await self._send(partition, [record for batch in batches for record in batch.records])
            except Exception as error:
                self._fail(error)
                return
            # The queue is another one if the partition was revoked and assigned again meanwhile.
            now = self._waiting.get(partition)
            if now is not waiting:
                continue
            for batch in batches:
                waiting.popleft()
                self._waiting_bytes -= batch.size
            self.published[partition] = batches[-1].sequence
            self._look_for_room()
            self.on_published()

    def _look_for_room(self) -> None:
        if self._waiting_bytes > FULL_BYTES:
            self._room.clear()
        else:
            self._room.set()

    def _fail(self, error: Exception) -> None:
        if self._failed is None:
            self._failed = asyncio.get_running_loop().create_future()
            self._failed.set_exception(error)
        self._room.set()
        self.on_published()


def pack(records: Sequence[Record]) -> bytes:
    """Encode records for an outbox."""
    return _encode(records)


def outbox_batch_of(partition: int, sequence: int, packed: bytes) -> OutboxBatch:
    """Decode a row of an outbox. Events are numbered consecutively, so the last number gives the first."""
    records = _decode(packed)
    return OutboxBatch(partition, sequence - len(records) + 1, sequence, records, len(packed))
