"""The two sides of the load: commands go out at a rate, events come in."""

import asyncio
import time
from collections.abc import Callable, Iterator
from itertools import islice

from aiokafka import AIOKafkaConsumer

from mercuria.domain.commands import ClientCommand
from mercuria.kafka.client import CommandProducer
from mercuria.kafka.cloudevents import read_event
from tests.harness.chaos.kafka.pending import PendingCommands

TICK_S = 0.02
MADE_UP_S = 0.5
"""So much of a pause is made up for: what a busy machine delays still comes at the rate."""
MAX_IN_FLIGHT = 8_000
"""So many commands may be unanswered. More would only make the last answers late."""


async def send_commands(
    commands: Iterator[ClientCommand],
    producer: CommandProducer,
    pending: PendingCommands,
    rate_per_s: float,
    is_over: Callable[[], bool],
) -> None:
    """Send commands at a rate until `is_over`, as long as not too many are unanswered."""
    due, counted_s = 0.0, time.monotonic()
    while not is_over():
        now_s = time.monotonic()
        # What a long pause has held up is not made up for.
        due, counted_s = due + min(now_s - counted_s, MADE_UP_S) * rate_per_s, now_s
        if due >= 1 and pending.unanswered < MAX_IN_FLIGHT:
            some = list(islice(commands, int(due)))
            if not some:
                return
            due -= len(some)
            for command in some:
                pending.expect(command)
            await producer.send(some)
        due = min(due, MADE_UP_S * rate_per_s)
        await asyncio.sleep(max(0.0, counted_s + TICK_S - time.monotonic()))


async def receive_events(reader: AIOKafkaConsumer, pending: PendingCommands) -> None:
    """Take events until cancelled."""
    while True:
        for tp, records in (await reader.getmany(timeout_ms=50, max_records=2000)).items():
            for record in records:
                pending.take(tp.partition, read_event(record.value))
