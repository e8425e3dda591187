"""What the tests of the books share: a stack of which nothing is on its way."""

import pytest

from mercuria.embedded.stack import Stack
from tests.harness.audit.projections import audit_projections
from tests.projections.test_stack import run_on


@pytest.fixture
async def quiet(live_stack: Stack) -> Stack:
    """Return the stack with some wallets, of which nothing is on its way."""
    await run_on(live_stack, commands=500).run()
    await audit_projections(live_stack)
    return live_stack
