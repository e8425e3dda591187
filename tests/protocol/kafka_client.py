"""A plain Kafka client of a stack: sends records of any kind to the command topic, and waits for their outcome."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from mercuria.domain.commands import ClientCommand, Deposit, OpenWallet
from mercuria.domain.events import Event
from mercuria.embedded.stack import Stack
from mercuria.kafka.client import Sent, event_reader
from mercuria.kafka.cloudevents import read_event
from mercuria.kafka.partitioning import Partitioner
from mercuria.topics import WALLET_COMMANDS, WALLET_DEAD_LETTERS, WALLET_EVENTS

ANSWERED_WITHIN_S = 60.0
"""Long enough for a worker that has just been killed."""


class KafkaClient:
    """Sends, and stores all events and dead letters since it was connected."""

    def __init__(self, producer: AIOKafkaProducer, partitioner: Partitioner) -> None:
        self.partitioner = partitioner
        self.events: defaultdict[tuple[int, int], list[bytes]] = defaultdict(list)
        self.dead_letters: dict[tuple[int, int], Any] = {}
        self._producer = producer
        self._changed = asyncio.Condition()

    async def put(
        self,
        value: bytes | None,
        *,
        key: bytes | None,
        partition: int,
        topic: str = WALLET_COMMANDS,
        headers: Sequence[tuple[str, bytes | None]] = (),
    ) -> Sent:
        """Put any record on a topic."""
        metadata = await self._producer.send_and_wait(
            topic, value, key=key, partition=partition, headers=headers
        )
        return Sent(metadata.partition, metadata.offset)

    async def send(self, command: ClientCommand, *, partition: int | None = None) -> Sent:
        """Send a command to its wallet's partition, or to another one."""
        route = self.partitioner.of(command.wallet_id)
        at = route.partition if partition is None else partition
        return await self.put(msgspec.json.encode(command), key=route.key, partition=at)

    async def answer(self, sent: Sent) -> Event:
        """Return the event that answers a record."""
        return read_event(await self.answer_bytes(sent))

    async def answer_bytes(self, sent: Sent, times: int = 1) -> bytes:
        """Return the event that answers a record, when it came `times`; it was the same each time."""
        await self.until(lambda: len(self.events[sent]) >= times)
        assert len(set(self.events[sent])) == 1, self.events[sent]
        return self.events[sent][0]

    async def dead_letter(self, sent: Sent) -> Any:
        """Return the dead letter of a record."""
        await self.until(lambda: sent in self.dead_letters)
        return self.dead_letters[sent]

    async def do(self, command: ClientCommand, *, partition: int | None = None) -> Any:
        """Send a command to its wallet's partition, and return the event that answers it."""
        return await self.answer(await self.send(command, partition=partition))

    async def wallet(self, balance: int = 0, currency: str = "EUR", partition: int | None = None) -> UUID:
        """Open a wallet with a balance, in a partition."""
        wallet_id = self.new_id(partition)
        opened = await self.send(
            OpenWallet(id=uuid4(), wallet_id=wallet_id, owner_id=uuid4(), currency=currency)
        )
        await self.answer(opened)
        if balance:
            await self.deposit(wallet_id, balance, currency)
        return wallet_id

    def new_id(self, partition: int | None = None) -> UUID:
        """Return the id of a wallet that lives in a partition."""
        while True:
            wallet_id = uuid4()
            if partition is None or self.partitioner.of(wallet_id).partition == partition:
                return wallet_id

    async def deposit(self, wallet_id: UUID, amount: int, currency: str = "EUR") -> Any:
        """Bring money into a wallet, and return the event."""
        return await self.do(Deposit(id=uuid4(), wallet_id=wallet_id, amount=amount, currency=currency))

    async def find(self, matches: Callable[[Any], bool]) -> Any:
        """Wait for an event that `matches`, and return it."""
        found: list[Event] = []

        def look() -> bool:
            found[:] = [event for event in map(read_event, self._all()) if matches(event)]
            return bool(found)

        await self.until(look)
        return found[0]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition holds; it is asked whenever something has come."""
        async with asyncio.timeout(ANSWERED_WITHIN_S), self._changed:
            await self._changed.wait_for(condition)

    async def listen(self, events: AIOKafkaConsumer, dead_letters: AIOKafkaConsumer) -> None:
        """Take what comes, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._take(events, self._take_event))
            group.create_task(self._take(dead_letters, self._take_dead_letter))

    async def _take(self, reader: AIOKafkaConsumer, take: Callable[[Any], None]) -> None:
        async for record in reader:
            take(record)
            async with self._changed:
                self._changed.notify_all()

    def _take_event(self, record: Any) -> None:
        offset = msgspec.json.decode(record.value)["data"]["offset"]
        self.events[Sent(record.partition, offset)].append(record.value)

    def _take_dead_letter(self, record: Any) -> None:
        headers = dict(record.headers)
        self.dead_letters[Sent(int(headers["partition"]), int(headers["offset"]))] = record

    def _all(self) -> list[bytes]:
        return [values[0] for values in self.events.values() if values]


@asynccontextmanager
async def open_kafka_client(stack: Stack) -> AsyncIterator[KafkaClient]:
    """Connect a client to a stack."""
    servers = stack.env["MERCURIA_KAFKA"]
    producer = AIOKafkaProducer(bootstrap_servers=servers, acks="all", max_request_size=4 * 1024 * 1024)
    async with (
        event_reader(servers, WALLET_EVENTS) as events,
        event_reader(servers, WALLET_DEAD_LETTERS) as dead,
    ):
        await producer.start()
        kafka_client = KafkaClient(producer, Partitioner(int(stack.env["MERCURIA_PARTITIONS"])))
        listening = asyncio.create_task(kafka_client.listen(events, dead))
        try:
            yield kafka_client
        finally:
            listening.cancel()
            await asyncio.wait([listening])
            await producer.stop()
