"""The wallets of the benchmark: they are opened before it, and read for the audit after it."""

import json
import random
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from typing import Any
from uuid import UUID

import click

from mercuria.auth.tokens import Caller, Role
from mercuria.domain.commands import ClientCommand, Deposit, OpenWallet
from mercuria.embedded.ports import LOOPBACK
from mercuria.embedded.stack import Stack
from tests.harness.bench.workload import CURRENCY, FUNDS
from tests.harness.stacks import token_issuer

ANSWER_TIMEOUT_S = 30
POLL_S = 0.05


class Accounts:
    """Wallets of one currency, each of an owner of its own, and the owners' access tokens.

    Args:
        seed: the same seed gives the same wallets and owners.
    """

    def __init__(self, stack: Stack, count: int, seed: int) -> None:
        self._tokens = token_issuer(stack)
        self._random = random.Random(seed)
        self.owners = {self._uuid(): self._uuid() for _ in range(count)}
        """The owner of each wallet."""

    @property
    def total(self) -> int:
        """What is in all wallets together, in minor units."""
        return FUNDS * len(self.owners)

    def opening(self) -> Iterator[ClientCommand]:
        """Open and fill every wallet."""
        for wallet_id, owner_id in self.owners.items():
            yield OpenWallet(id=self._uuid(), wallet_id=wallet_id, owner_id=owner_id, currency=CURRENCY)
            yield Deposit(id=self._uuid(), wallet_id=wallet_id, amount=FUNDS, currency=CURRENCY)

    def with_tokens(self) -> list[tuple[str, str]]:
        """Return every wallet's id with an access token of its owner."""
        return [(str(wallet_id), self.token(owner_id)) for wallet_id, owner_id in self.owners.items()]

    def token(self, user_id: UUID, role: Role = "user") -> str:
        """Return an access token."""
        return self._tokens.issue(Caller(user_id, role))

    def operator(self) -> str:
        """Return an access token with which all wallets and transactions can be seen."""
        return self.token(self._uuid(), "operator")

    def _uuid(self) -> UUID:
        return UUID(int=self._random.getrandbits(128), version=4)


class Reader:
    """Reads wallets and transactions as an operator, one at a time."""

    def __init__(self, port: int, token: str) -> None:
        self._connection = HTTPConnection(LOOPBACK, port, timeout=ANSWER_TIMEOUT_S)
        self._headers = {"Authorization": f"Bearer {token}"}

    def get(self, path: str) -> Any:
        """Return the JSON at a path.

        Raises:
            click.ClickException: the answer is another one than 200, also after retries for a while.
        """
        deadline = time.monotonic() + ANSWER_TIMEOUT_S
        while True:
            self._connection.request("GET", path, headers=self._headers)
            answer = self._connection.getresponse()
            body = answer.read()
            if answer.status == 200:
                return json.loads(body)
            # A worker that has just started, or is overloaded, asks for a retry.
            if answer.status != 503 or time.monotonic() > deadline:
                raise click.ClickException(f"GET {path} is answered with {answer.status}: {body.decode()}")
            time.sleep(POLL_S)

    def balance(self, wallet_id: UUID) -> int:
        """Return a wallet's balance, in minor units, after all that Kafka has for it."""
        return int(self.get(f"/api/v1/wallets/{wallet_id}?consistency=strong")["balance"])

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
