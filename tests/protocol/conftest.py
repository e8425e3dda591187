"""What the tests of the protocol share."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from mercuria.embedded.stack import Stack
from mercuria.embedded.worker import Worker
from tests.conftest import living
from tests.harness.stacks import PARTITIONS
from tests.protocol.kafka_client import KafkaClient, open_kafka_client


@pytest.fixture(scope="package")
def live_stack(tmp_path_factory: pytest.TempPathFactory, said: list[str]) -> Iterator[Stack]:
    """Return a stack of these tests' own: they do much and audit all of it, and what others did would take minutes."""
    with living(tmp_path_factory, said) as stack:
        yield stack


@pytest.fixture
async def kafka_client(live_stack: Stack) -> AsyncIterator[KafkaClient]:
    """Return a Kafka client of the shared stack."""
    async with open_kafka_client(live_stack) as opened:
        yield opened


@pytest.fixture
async def lone_worker(live_stack: Stack, kafka_client: KafkaClient) -> AsyncIterator[Worker]:
    """Let only the first worker run, and return it when it has all partitions and decides in each."""
    first, second = live_stack.workers
    await asyncio.to_thread(second.stop)
    # Until then it reads the changelogs, and takes what a zombie writer writes for what it has to recover.
    await asyncio.gather(*(kafka_client.wallet(partition=number) for number in range(PARTITIONS)))
    yield first
    await asyncio.to_thread(second.start)
