"""Orders: what people ask for over HTTP that changes something, each under a key of its own.

The same seed gives the same people, keys and choices; which wallet has which id is Mercuria's choice.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal, NamedTuple
from uuid import UUID

from tests.harness.chaos.asking import LOST, NOT_SENT, Answer

Kind = Literal["open", "deposit", "withdraw", "transfer"]

CURRENCIES = ("EUR", "JPY")
FUNDS = 20_000
"""What each wallet is filled with: so little that some withdrawals are refused."""


class Person(NamedTuple):
    """Somebody with an access token."""

    id: UUID
    token: str


class Account(NamedTuple):
    """A wallet that was opened, as its owner knows it."""

    id: UUID
    owner: Person
    currency: str


@dataclass(eq=False)
class Order:
    """A request under one key, and all that was answered to it. In the log, it has its key for a reference."""

    number: int
    kind: Kind
    person: Person
    key: str
    path: str
    body: dict[str, Any]
    answers: list[Answer] = field(default_factory=list)

    @property
    def final(self) -> Answer | None:
        """The first answer that says what the wallet has decided, if there is one."""
        return next((each for each in self.answers if each.is_final), None)

    @property
    def accepted(self) -> Answer | None:
        """The first answer that says that it will be carried out, if there is one."""
        return next((each for each in self.answers if each.status == 202), None)

    @property
    def is_unsent(self) -> bool:
        """Whether each answer says that nothing was sent to a wallet."""
        return all(each.status == 503 and each.code in NOT_SENT for each in self.answers)

    @property
    def is_answered(self) -> bool:
        """Whether there was any answer at all."""
        return any(each.status != LOST for each in self.answers)


class Orders:
    """Makes orders.

    Args:
        random: what chooses.
        people: who orders.
        name: begins all keys.
    """

    def __init__(self, random: Random, people: list[Person], name: str) -> None:
        self.made: list[Order] = []
        self.accounts: list[Account] = []
        self._random = random
        self._people = people
        self._name = name

    def opening(self, person: Person | None = None) -> Order:
        """Order a wallet."""
        owner = person or self._random.choice(self._people)
        return self._make("open", owner, "/api/v1/wallets", {"currency": self._random.choice(CURRENCIES)})

    def filling(self, account: Account) -> Order:
        """Order the first deposit of a wallet."""
        return self._deposit(account, FUNDS)

    def movement(self) -> Order:
        """Order a movement of money: about half of them are transfers, and a few must be refused."""
        account, chance = self._random.choice(self.accounts), self._random.random()
        amount = self._random.randint(1, 500)
        if chance < 0.5:
            return self._transfer(account, amount)
        if chance < 0.75:
            return self._deposit(account, amount)
        if chance < 0.97:
            return self._withdraw(account, amount)
        return self._withdraw(account, 10**9) if chance < 0.985 else self._stranger(account, amount)

    def opened(self, order: Order, wallet: dict[str, Any]) -> Account:
        """Take note of a wallet that was opened."""
        account = Account(UUID(wallet["id"]), order.person, wallet["currency"])
        self.accounts.append(account)
        return account

    def _deposit(self, account: Account, amount: int) -> Order:
        return self._make(
            "deposit", account.owner, f"/api/v1/wallets/{account.id}/deposit", {"amount": amount}
        )

    def _withdraw(self, account: Account, amount: int) -> Order:
        return self._make(
            "withdraw", account.owner, f"/api/v1/wallets/{account.id}/withdraw", {"amount": amount}
        )

    def _stranger(self, account: Account, amount: int) -> Order:
        """Order money out of a wallet for somebody whose wallet it is not."""
        person = self._random.choice([each for each in self._people if each != account.owner])
        return self._make("withdraw", person, f"/api/v1/wallets/{account.id}/withdraw", {"amount": amount})

    def _transfer(self, sender: Account, amount: int) -> Order:
        # To a wallet in another currency, the money does not get through, and comes back.
        fits: Callable[[Account], bool] = lambda each: each.currency == sender.currency  # noqa: E731
        if self._random.random() < 0.05:
            fits = lambda _: True  # noqa: E731
        receivers = [each for each in self.accounts if each.id != sender.id and fits(each)]
        body = {
            "from_wallet_id": str(sender.id),
            "to_wallet_id": str(self._random.choice(receivers).id),
            "amount": amount,
        }
        return self._make("transfer", sender.owner, "/api/v1/transactions", body)

    def _make(self, kind: Kind, person: Person, path: str, body: dict[str, Any]) -> Order:
        number = len(self.made)
        key = f"{self._name}-{number}"
        # So that it can be found in the log.
        body = body | ({"metadata": {"order": key}} if kind == "open" else {"reference": key})
        order = Order(number, kind, person, key, path, body)
        self.made.append(order)
        return order
