"""What the tests of the protocol share."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from mercuria.embedded.stack import Stack
from mercuria.embedded.worker import Worker
from tests.protocol.desk import Desk, open_desk


@pytest.fixture
async def desk(live_stack: Stack) -> AsyncIterator[Desk]:
    """Return a desk in front of the shared stack."""
    async with open_desk(live_stack) as opened:
        yield opened


@pytest.fixture
async def lone_worker(live_stack: Stack) -> AsyncIterator[Worker]:
    """Let only the first worker run, which then has all partitions, and return it."""
    first, second = live_stack.workers
    await asyncio.to_thread(second.stop)
    yield first
    await asyncio.to_thread(second.start)
