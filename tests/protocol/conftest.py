"""What the tests of the protocol share."""

from collections.abc import AsyncIterator

import pytest

from mercuria.embedded.stack import Stack
from tests.protocol.desk import Desk, open_desk


@pytest.fixture
async def desk(live_stack: Stack) -> AsyncIterator[Desk]:
    """Return a desk in front of the shared stack."""
    async with open_desk(live_stack) as opened:
        yield opened
