"""What the tests of the books share: a stack of which nothing is on its way."""

import pytest

from mercuria.embedded.stack import Stack
from tests.harness.chaos.stages import audit_stages
from tests.projections.test_stack import trial_of


@pytest.fixture
async def quiet(live_stack: Stack) -> Stack:
    """Return the stack with some wallets, of which nothing is on its way."""
    await trial_of(live_stack, commands=500).run()
    await audit_stages(live_stack)
    return live_stack
