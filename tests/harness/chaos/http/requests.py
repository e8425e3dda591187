"""The requests of a run that change something, each under an idempotency key of its own.

The same seed gives the same users, keys and choices; the ids of wallets are Mercuria's choice.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal, NamedTuple
from uuid import UUID

from tests.harness.chaos.http.client import LOST, NOT_SENT, Answer
from tests.harness.chaos.http.users import User

Kind = Literal["open", "deposit", "withdraw", "transfer"]

CURRENCIES = ("EUR", "JPY")
FUNDS = 20_000
"""The first deposit of each wallet: so little that some withdrawals are refused."""


class Account(NamedTuple):
    """A wallet that was opened, as its owner knows it."""

    id: UUID
    owner: User
    currency: str


@dataclass(eq=False)
class Request:
    """A request under one key, and all its answers. In the log, it has its key for a reference."""

    number: int
    kind: Kind
    user: User
    key: str
    path: str
    body: dict[str, Any]
    answers: list[Answer] = field(default_factory=list)

    @property
    def final(self) -> Answer | None:
        """The first answer that is the wallet's decision, if there is one."""
        return next((each for each in self.answers if each.is_final), None)

    @property
    def accepted(self) -> Answer | None:
        """The first answer that promises that it will be carried out, if there is one."""
        return next((each for each in self.answers if each.status == 202), None)

    @property
    def is_unsent(self) -> bool:
        """Whether each answer denies that anything was sent to a wallet."""
        return all(each.status == 503 and each.code in NOT_SENT for each in self.answers)

    @property
    def is_answered(self) -> bool:
        """Whether there was any answer at all."""
        return any(each.status != LOST for each in self.answers)


class RequestGenerator:
    """Generates requests.

    Args:
        random: makes the choices.
        users: who sends the requests.
        name: begins all keys.
    """

    def __init__(self, random: Random, users: list[User], name: str) -> None:
        self.requests: list[Request] = []
        """All that were generated, by their numbers."""
        self.accounts: list[Account] = []
        self._random = random
        self._users = users
        self._name = name

    def opening(self) -> Request:
        """Generate a request that opens a wallet."""
        owner = self._random.choice(self._users)
        return self._add("open", owner, "/api/v1/wallets", {"currency": self._random.choice(CURRENCIES)})

    def opened(self, request: Request, wallet: dict[str, Any]) -> Account:
        """Add a wallet that was opened to those between which money moves."""
        account = Account(UUID(wallet["id"]), request.user, wallet["currency"])
        self.accounts.append(account)
        return account

    def funding(self, account: Account) -> Request:
        """Generate the first deposit of a wallet."""
        return self._deposit(account, FUNDS)

    def movement(self) -> Request:
        """Generate a movement of money: about half of them are transfers, and a few must be refused."""
        account, chance = self._random.choice(self.accounts), self._random.random()
        amount = self._random.randint(1, 500)
        if chance < 0.5:
            return self._transfer(account, amount)
        if chance < 0.75:
            return self._deposit(account, amount)
        if chance < 0.97:
            return self._withdraw(account, account.owner, amount)
        if chance < 0.985:
            return self._withdraw(account, account.owner, 10**9)
        return self._withdraw(account, self._stranger(account), amount)

    def _deposit(self, account: Account, amount: int) -> Request:
        path = f"/api/v1/wallets/{account.id}/deposit"
        return self._add("deposit", account.owner, path, {"amount": amount})

    def _withdraw(self, account: Account, user: User, amount: int) -> Request:
        path = f"/api/v1/wallets/{account.id}/withdraw"
        return self._add("withdraw", user, path, {"amount": amount})

    def _stranger(self, account: Account) -> User:
        """Choose a user who does not own a wallet."""
        return self._random.choice([each for each in self._users if each != account.owner])

    def _transfer(self, sender: Account, amount: int) -> Request:
        # A wallet in another currency refuses the money, which then comes back.
        fits: Callable[[Account], bool] = lambda each: each.currency == sender.currency  # noqa: E731
        if self._random.random() < 0.05:
            fits = lambda _: True  # noqa: E731
        receivers = [each for each in self.accounts if each.id != sender.id and fits(each)]
        body = {
            "from_wallet_id": str(sender.id),
            "to_wallet_id": str(self._random.choice(receivers).id),
            "amount": amount,
        }
        return self._add("transfer", sender.owner, "/api/v1/transactions", body)

    def _add(self, kind: Kind, user: User, path: str, body: dict[str, Any]) -> Request:
        number = len(self.requests)
        key = f"{self._name}-{number}"
        # The event log is searched for it.
        body = body | ({"metadata": {"order": key}} if kind == "open" else {"reference": key})
        request = Request(number, kind, user, key, path, body)
        self.requests.append(request)
        return request
