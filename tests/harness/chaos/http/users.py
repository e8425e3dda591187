"""The users of a run: they are not registered, since a worker asks only for an access token."""

from random import Random
from typing import NamedTuple
from uuid import UUID, uuid4

from mercuria.auth.tokens import Caller
from mercuria.embedded.stack import Stack
from tests.harness.stacks import token_issuer

USERS = 6


class User(NamedTuple):
    """A user with an access token."""

    id: UUID
    token: str


def issue_users(stack: Stack, random: Random, count: int = USERS) -> list[User]:
    """Return users with access tokens for a stack; the same `random` gives the same ids."""
    tokens = token_issuer(stack)
    ids = [UUID(int=random.getrandbits(128), version=4) for _ in range(count)]
    return [User(id_, tokens.issue(Caller(id_, "user"))) for id_ in ids]


def issue_operator(stack: Stack) -> User:
    """Return an operator with an access token for a stack."""
    operator = Caller(uuid4(), "operator")
    return User(operator.id, token_issuer(stack).issue(operator))
