"""What the tests of the console share: people in front of the shared stack."""

import asyncio

import pytest

from mercuria.embedded.stack import Stack
from tests.web.people import People, Person, settle


@pytest.fixture(scope="module")
def people(live_stack: Stack) -> People:
    """Return who makes people, once every partition of the shared stack has an owner."""
    asyncio.run(settle(live_stack))
    return People(live_stack)


@pytest.fixture
def zoe(people: People) -> Person:
    """Return somebody."""
    return people.user()


@pytest.fixture
def operator(people: People) -> Person:
    """Return an operator."""
    return people.operator()
