"""Runs last: all that the tests of this folder did to the shared stack, from its first record on."""

from mercuria.embedded.stack import Stack
from tests.harness.audit.stack import audit_stack


async def test_the_whole_log_is_clean(live_stack: Stack) -> None:
    audit = await audit_stack(live_stack)
    print(audit)
    assert audit.violations == []
