"""Prometheus finds what the dashboard and the alerts ask for, with a stack that runs."""

from pathlib import Path

import pytest

from mercuria.embedded.stack import Stack
from tests.deployment.queries import complaints


@pytest.mark.timeout(240)
async def test_every_query_of_the_dashboard_and_every_alert_finds_what_it_asks_for(
    live_stack: Stack, tmp_path: Path
) -> None:
    assert await complaints(live_stack, tmp_path) == []
