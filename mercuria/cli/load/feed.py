"""Sending commands through Kafka, with a bounded number in flight, and matching events that answer them.

The module contains the connection, the flow control, the detection of stalls, and the progress display.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from itertools import islice
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

import msgspec
from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from msgspec import Struct
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TimeRemainingColumn
from rich.text import Text

from mercuria.cli.load.errors import LoadError
from mercuria.cli.load.words import count
from mercuria.config import current_settings
from mercuria.domain.commands import ClientCommand
from mercuria.domain.rejections import Code
from mercuria.kafka.client import CommandProducer, Sent, command_producer, event_reader
from mercuria.topics import WALLET_COMMANDS, WALLET_EVENTS

IN_FLIGHT = 16_384
"""How many commands may be undecided at a time: enough that no worker ever waits for the loader."""
SENT_AT_ONCE = 2_048
CONNECT_TIMEOUT_S = 15
CLOSE_TIMEOUT_S = 5
QUIET_S = 3
"""After this time without a decision, the progress bar shows what it waits for."""

S = TypeVar("S")


class Decision(Struct):
    """The parts of an event that the load needs, for all types; a refusal has a code."""

    offset: int
    transaction_id: UUID | None = None
    command_id: UUID | None = None
    balance: int | None = None
    code: Code | None = None
    detail: str = ""


class _Envelope(Struct):
    data: Decision


_decode = msgspec.json.Decoder(_Envelope).decode


class Answer(NamedTuple):
    """The result of a command, and its time. `is_repeat`: it was decided before it was sent this time."""

    decision: Decision
    time_ms: int
    is_repeat: bool


class Feed:
    """Sends commands, a bounded number ahead of the decisions, and matches the events that answer them.

    `expected` is the number of decisions to come, as far as it is known.
    """

    def __init__(self, producer: CommandProducer, reader: AIOKafkaConsumer, patience_s: float) -> None:
        self.decided = 0
        self.expected = 0
        self.on_decided: Callable[[], None] = lambda: None
        self._producer = producer
        self._reader = reader
        self._patience_s = patience_s
        self._waiting: dict[UUID | None, tuple[Sent, Any]] = {}
        self._waiting_in = [0] * current_settings().partitions
        self._moved_at = time.monotonic()
        self._patience = asyncio.timeout(None)
        self._is_sending = False

    async def run(
        self, commands: Iterable[tuple[ClientCommand, S]], hear: Callable[[S, Answer], None]
    ) -> None:
        """Send commands, each with its subject, and call `hear` with the answer for each subject.

        Raises:
            LoadError: no command was decided for too long, or Kafka refuses.
        """
        self._moved_at = time.monotonic()
        try:
            async with asyncio.timeout(self._patience_s) as self._patience:
                for chunk in _chunks(commands, SENT_AT_ONCE):
                    while len(self._waiting) + len(chunk) > IN_FLIGHT:
                        await self._collect(hear)
                    await self._send(chunk)
                while self._waiting:
                    await self._collect(hear)
        except TimeoutError:
            raise LoadError(f"gave up: {self.stillness()}. {_AFTERWARDS}") from None
        except KafkaError as error:
            raise LoadError(f"Kafka at {current_settings().kafka} refuses: {error}. {_AFTERWARDS}") from None

    @property
    def still_s(self) -> float:
        """The time since the last decision."""
        return time.monotonic() - self._moved_at

    def stillness(self) -> str:
        """Return what the feed waits for, as a sentence without its full stop."""
        since = f"for {self.still_s:.0f} s"
        if self._is_sending:
            return f"Kafka at {current_settings().kafka} has not taken a command {since}"
        partitions = [str(number) for number, undecided in enumerate(self._waiting_in) if undecided]
        which = f"partition{'s' * (len(partitions) > 1)} {', '.join(partitions)}"
        waiting = count(sum(self._waiting_in), "undecided command")
        return f"no worker has decided anything {since}; {waiting} in {which}"

    async def _send(self, chunk: list[tuple[ClientCommand, Any]]) -> None:
        self._is_sending = True
        places = await self._producer.send([command for command, _ in chunk])
        self._is_sending = False
        for (command, subject), place in zip(chunk, places, strict=True):
            self._waiting[command.id] = place, subject
            self._waiting_in[place.partition] += 1

    async def _collect(self, hear: Callable[[Any, Answer], None]) -> None:
        before = self.decided
        for records in (await self._reader.getmany(timeout_ms=200)).values():
            for record in records:
                decision = _decode(record.value).data
                waiting = self._waiting.pop(decision.transaction_id or decision.command_id, None)
                if waiting is not None:
                    place, subject = waiting
                    self.decided += 1
                    self._waiting_in[place.partition] -= 1
                    hear(subject, Answer(decision, record.timestamp, decision.offset < place.offset))
        if self.decided > before:
            self._moved_at = time.monotonic()
            self._patience.reschedule(asyncio.get_running_loop().time() + self._patience_s)
            self.on_decided()


_AFTERWARDS = (
    "What was sent will be decided when Mercuria runs again (`mercuria status` shows what does);"
    " load the file again then: nothing counts twice."
)


@asynccontextmanager
async def connected(patience_s: float) -> AsyncIterator[Feed]:
    """Connect a `Feed`; disconnecting takes seconds at most, even if Kafka is unavailable."""
    settings = current_settings()
    connections = AsyncExitStack()
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            producer = command_producer(settings.kafka, settings.partitions)
            reader = event_reader(settings.kafka)
            feed = Feed(
                await connections.enter_async_context(producer),
                await connections.enter_async_context(reader),
                patience_s,
            )
    except (TimeoutError, KafkaError) as error:
        await _close(connections)
        raise LoadError(f"Kafka at {settings.kafka} does not answer ({type(error).__name__}).") from None
    try:
        yield feed
    finally:
        await _close(connections)


async def _close(connections: AsyncExitStack) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await connections.aclose()


@contextmanager
def progress_bar(feed: Feed, console: Console) -> Iterator[None]:
    """Show the progress of a feed, its rate, and what it waits for when it stalls."""
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
        _Stillness(feed),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=feed.expected)
        feed.on_decided = lambda: progress.update(task, completed=feed.decided, total=feed.expected)
        yield


class _Rate(ProgressColumn):
    """Commands per second."""

    def render(self, task: Task) -> Text:
        """Return the rate, once it is known."""
        return Text(f"{task.speed:,.0f} commands/s" if task.speed else "")


class _Stillness(ProgressColumn):
    """What the feed waits for."""

    def __init__(self, feed: Feed) -> None:
        super().__init__()
        self._feed = feed

    def render(self, task: Task) -> Text:
        """Return a remark after some seconds without progress."""
        return Text(self._feed.stillness() if self._feed.still_s > QUIET_S else "")


async def require_topics() -> None:
    """Check that Mercuria's Kafka is available at the configured address.

    Raises:
        LoadError: it is not; the message says what to do.
    """
    settings = current_settings()
    start = f"start Mercuria with `mercuria up --data-dir {settings.data_dir}`"
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka)
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            await admin.start()
            topics = await admin.describe_topics([WALLET_COMMANDS, WALLET_EVENTS])
    except (TimeoutError, KafkaError, OSError):
        raise LoadError(
            f"no Kafka answers at {settings.kafka}; {start}, or point MERCURIA_KAFKA at it."
        ) from None
    finally:
        await admin.close()
    for topic in topics:
        number = len(topic["partitions"])
        if not number:
            raise LoadError(f"the Kafka at {settings.kafka} has no topic {topic['topic']}; {start}.")
        if number != settings.partitions:
            raise LoadError(
                f"{topic['topic']} has {number} partitions, not {settings.partitions};"
                f" set MERCURIA_PARTITIONS={number}."
            )


def _chunks(items: Iterable[S], size: int) -> Iterator[list[S]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk
