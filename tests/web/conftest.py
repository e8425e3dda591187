"""What the tests of the HTTP API share: people in front of the shared stack."""

import asyncio

import pytest

from mercuria.embedded.stack import Stack
from tests.web.people import People, Person, Scene, set_scene, settle


@pytest.fixture(scope="module")
def settled(live_stack: Stack) -> Stack:
    """Return the shared stack once every partition has an owner again: tests before may have stopped workers."""
    asyncio.run(settle(live_stack))
    return live_stack


@pytest.fixture
def people(settled: Stack) -> People:
    """Return who makes people."""
    return People(settled)


@pytest.fixture
def zoe(people: People) -> Person:
    """Return somebody."""
    return people.user()


@pytest.fixture
def max_(people: People) -> Person:
    """Return somebody else."""
    return people.user()


@pytest.fixture
def operator(people: People) -> Person:
    """Return an operator."""
    return people.operator()


@pytest.fixture(scope="session")
def scene(live_stack: Stack) -> Scene:
    """Return people and wallets for what is refused."""
    asyncio.run(settle(live_stack))
    return asyncio.run(set_scene(People(live_stack)))
