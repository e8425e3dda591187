"""What the tests of the HTTP API share: clients of the shared stack."""

import asyncio

import pytest

from mercuria.embedded.stack import Stack
from tests.web.api_client import ApiClient, ApiClients, Scene, set_scene, settle


@pytest.fixture(scope="module")
def settled(live_stack: Stack) -> Stack:
    """Return the shared stack once every partition has an owner again: tests before may have stopped workers."""
    asyncio.run(settle(live_stack))
    return live_stack


@pytest.fixture
def clients(settled: Stack) -> ApiClients:
    """Return a maker of API clients."""
    return ApiClients(settled)


@pytest.fixture
def zoe(clients: ApiClients) -> ApiClient:
    """Return somebody."""
    return clients.user()


@pytest.fixture
def max_(clients: ApiClients) -> ApiClient:
    """Return somebody else."""
    return clients.user()


@pytest.fixture
def operator(clients: ApiClients) -> ApiClient:
    """Return an operator."""
    return clients.operator()


@pytest.fixture(scope="session")
def scene(live_stack: Stack) -> Scene:
    """Return clients and wallets for what is refused."""
    asyncio.run(settle(live_stack))
    return asyncio.run(set_scene(ApiClients(live_stack)))
