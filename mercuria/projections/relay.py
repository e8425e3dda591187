"""The relay: brings what a stage has told from its outbox into Kafka, in the order of each partition.

What is told is in the outbox when it comes here. So it does not matter when this process dies: whoever has the
partition next finds it there, and sends what may have been sent before. A partition has one request under way, so that
what failed cannot be overtaken by what follows.
"""

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Iterable, Sequence

import msgspec
from msgspec import Struct, field

from mercuria.kafka.producer import Record

FULL_BYTES = 32 * 1024 * 1024
"""So much may wait to be sent. Then the stage waits, too."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Record]).decode


class OutboxBatch(Struct, frozen=True):
    """What one transaction has told in a partition: the events with the numbers `first` to `sequence`.

    `since_s` is when this process has had it, on its monotonic clock.
    """

    partition: int
    first: int
    sequence: int
    records: Sequence[Record]
    size: int
    since_s: float = field(default_factory=time.monotonic)


class Relay:
    """What waits to be sent.

    Args:
        send: appends records to a partition of the next topic, and returns when Kafka has acknowledged them.
        on_published: called when something may leave the outbox.
    """

    def __init__(
        self,
        send: Callable[[int, Sequence[Record]], Awaitable[object]],
        on_published: Callable[[], None] = lambda: None,
    ) -> None:
        self.published: dict[int, int] = {}
        """By partition, up to which number Kafka has what the outbox may still hold."""
        self.on_published = on_published
        self._send = send
        self._waiting: defaultdict[int, deque[OutboxBatch]] = defaultdict(deque)
        self._sending: dict[int, asyncio.Task[None]] = {}
        self._room = asyncio.Event()
        self._failed: asyncio.Future[None] | None = None
        self._waiting_bytes = 0

    @property
    def waiting(self) -> int:
        """How many batches wait to be sent, or are under way."""
        return sum(map(len, self._waiting.values()))

    @property
    def events(self) -> int:
        """How many events wait to be sent, or are under way."""
        return sum(len(batch.records) for waiting in self._waiting.values() for batch in waiting)

    @property
    def oldest_s(self) -> float:
        """For how long the oldest of them has been here; 0 when there is none."""
        since_s = [waiting[0].since_s for waiting in self._waiting.values() if waiting]
        return time.monotonic() - min(since_s) if since_s else 0.0

    @property
    def has_failed(self) -> bool:
        """Whether Kafka did not take something."""
        return self._failed is not None

    def take(self, batches: Iterable[OutboxBatch]) -> None:
        """Send batches, behind those before."""
        for batch in batches:
            waiting = self._waiting[batch.partition]
            assert not waiting or batch.first == waiting[-1].sequence + 1, (
                "what is told follows what was told"
            )
            waiting.append(batch)
            self._waiting_bytes += batch.size
            self._begin(batch.partition)

    def replace(self, partition: int, batches: Iterable[OutboxBatch]) -> None:
        """Send what the outbox holds of a partition, in place of what was known of it."""
        self.forget(partition)
        self.take(batches)

    def forget(self, partition: int) -> None:
        """Send nothing more of a partition. What is under way may still arrive, which does no harm."""
        for batch in self._waiting.pop(partition, ()):
            self._waiting_bytes -= batch.size
        self.published.pop(partition, None)
        self._look_for_room()

    def has_left(self, published: dict[int, int]) -> None:
        """Note up to which numbers the outbox holds nothing any more."""
        for partition, sequence in published.items():
            if self.published.get(partition) == sequence:
                del self.published[partition]

    async def room(self) -> None:
        """Wait until there is room for more.

        Raises:
            Exception: Kafka did not take something.
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
            # Others may be there, if the partition was taken away and came back meanwhile.
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
    """Return records as an outbox keeps them."""
    return _encode(records)


def outbox_batch_of(partition: int, sequence: int, packed: bytes) -> OutboxBatch:
    """Return what an outbox has kept. Events are numbered one by one, so the last number says the first."""
    records = _decode(packed)
    return OutboxBatch(partition, sequence - len(records) + 1, sequence, records, len(packed))
