"""The commands of a chaos run. The same seed gives the same commands, ids included."""

from collections.abc import Iterator
from random import Random
from uuid import UUID

import msgspec

from mercuria.domain.commands import (
    ClientCommand,
    CloseWallet,
    Deposit,
    FreezeWallet,
    OpenWallet,
    SetLimits,
    Transfer,
    UnfreezeWallet,
    Withdraw,
)

CURRENCIES = ("EUR", "JPY")
FUNDS = 10_000
"""So little that some wallets run out."""
EFFECTIVE_AT = "2021-03-04T00:00:00.000Z"
REMEMBERED = 2_000
"""A command is sent again while it is one of so many latest."""


class CommandGenerator:
    """Commands without end, over some wallets in two currencies.

    Half of the commands are transfers. A part of the wallets is frozen, closed, or does not exist; some are frozen and
    unfrozen on the way, and some get another overdraft limit. Some money moves with an effective date. About 3 % of
    the commands are sent again once or twice, and some ids with another content.
    """

    def __init__(self, random: Random, wallets: int = 500) -> None:
        self._random = random
        self._ids = [self._id() for _ in range(wallets)]
        self._currencies = {each: CURRENCIES[index % 2] for index, each in enumerate(self._ids)}
        self._by_currency = {
            currency: [each for each in self._ids if self._currencies[each] == currency]
            for currency in CURRENCIES
        }
        few = max(1, wallets // 50)
        self._frozen, self._closed, self._unknown = (
            self._ids[:few],
            self._ids[few : 2 * few],
            self._ids[-few:],
        )
        self._sent: list[ClientCommand] = []

    def opening(self) -> Iterator[ClientCommand]:
        """Yield what opens, funds, freezes and closes the wallets."""
        for each in self._ids[: -len(self._unknown)]:
            yield OpenWallet(
                id=self._id(), wallet_id=each, owner_id=self._id(), currency=self._currencies[each]
            )
            if each not in self._closed:
                yield Deposit(id=self._id(), wallet_id=each, amount=FUNDS, currency=self._currencies[each])
        for each in self._frozen:
            yield FreezeWallet(id=self._id(), wallet_id=each)
        for each in self._closed:
            yield CloseWallet(id=self._id(), wallet_id=each)

    def commands(self) -> Iterator[ClientCommand]:
        """Yield commands, and now and then one again."""
        while True:
            if self._sent and self._random.random() < 0.03:
                yield from self._again()
                continue
            command = self._command()
            self._remember(command)
            yield command

    def _command(self) -> ClientCommand:
        chance, wallet_id = self._random.random(), self._random.choice(self._ids)
        amount, currency = self._random.randint(1, 1000), self._currencies[wallet_id]
        if chance < 0.5:
            return Transfer(
                id=self._id(),
                wallet_id=wallet_id,
                to_wallet_id=self._receiver(currency),
                amount=amount,
                currency=currency,
                effective_at=EFFECTIVE_AT if amount < 100 else None,
            )
        if chance < 0.745:
            effective_at = EFFECTIVE_AT if amount < 100 else None
            return Deposit(
                id=self._id(),
                wallet_id=wallet_id,
                amount=amount,
                currency=currency,
                effective_at=effective_at,
            )
        if chance < 0.99:
            return Withdraw(id=self._id(), wallet_id=wallet_id, amount=amount, currency=currency)
        if chance > 0.998:
            # Also below what the wallet owes by then.
            return SetLimits(id=self._id(), wallet_id=wallet_id, overdraft_limit=amount)
        kind = FreezeWallet if chance < 0.991 else UnfreezeWallet
        return kind(id=self._id(), wallet_id=wallet_id)

    def _receiver(self, currency: str) -> UUID:
        """Choose who receives: mostly a wallet of the same currency, to the others money does not get through."""
        if self._random.random() < 0.05:
            return self._random.choice(self._ids)
        return self._random.choice(self._by_currency[currency])

    def _again(self) -> Iterator[ClientCommand]:
        command = self._random.choice(self._sent)
        if isinstance(command, Deposit | Withdraw | Transfer) and self._random.random() < 0.2:
            yield msgspec.structs.replace(command, amount=command.amount + 1)
        else:
            yield from [command] * self._random.randint(1, 2)

    def _remember(self, command: ClientCommand) -> None:
        if len(self._sent) < REMEMBERED:
            self._sent.append(command)
        else:
            self._sent[self._random.randrange(REMEMBERED)] = command

    def _id(self) -> UUID:
        return UUID(int=self._random.getrandbits(128), version=4)
