"""What the tests of the console share: API clients of the shared stack."""

import asyncio

import pytest

from mercuria.embedded.stack import Stack
from tests.web.api_client import ApiClient, ApiClients, settle


@pytest.fixture(scope="module")
def clients(live_stack: Stack) -> ApiClients:
    """Return a maker of API clients, once every partition of the shared stack has an owner."""
    asyncio.run(settle(live_stack))
    return ApiClients(live_stack)


@pytest.fixture
def zoe(clients: ApiClients) -> ApiClient:
    """Return somebody."""
    return clients.user()


@pytest.fixture
def operator(clients: ApiClients) -> ApiClient:
    """Return an operator."""
    return clients.operator()
