"""What the benchmarks send: wallets, and a mix of deposits, withdrawals and transfers between them."""

import random
from collections.abc import Iterator
from uuid import UUID

from mercuria.domain.commands import ClientCommand, Deposit, OpenWallet, Transfer, Withdraw

CURRENCY = "EUR"
FUNDS = 10**12


class Workload:
    """Commands by a seeded generator: the same seed gives the same commands."""

    def __init__(self, wallets: int, seed: int) -> None:
        self._random = random.Random(seed)
        self.wallet_ids = [self._uuid() for _ in range(wallets)]

    def opening(self) -> Iterator[ClientCommand]:
        """Open and fund every wallet."""
        owner = self._uuid()
        for wallet_id in self.wallet_ids:
            yield OpenWallet(id=self._uuid(), wallet_id=wallet_id, owner_id=owner, currency=CURRENCY)
            yield Deposit(id=self._uuid(), wallet_id=wallet_id, amount=FUNDS, currency=CURRENCY)

    def mixed(self, count: int) -> Iterator[ClientCommand]:
        """One third each of deposits, withdrawals and transfers, over all wallets alike."""
        for number in range(count):
            wallet_id = self._random.choice(self.wallet_ids)
            kind = number % 3
            if kind == 0:
                yield Deposit(id=self._uuid(), wallet_id=wallet_id, amount=100, currency=CURRENCY)
            elif kind == 1:
                yield Withdraw(id=self._uuid(), wallet_id=wallet_id, amount=100, currency=CURRENCY)
            else:
                yield Transfer(
                    id=self._uuid(),
                    wallet_id=wallet_id,
                    to_wallet_id=self._other(wallet_id),
                    amount=100,
                    currency=CURRENCY,
                )

    def transfers(self, count: int) -> Iterator[ClientCommand]:
        """Transfers of one minor unit between wallets chosen at random."""
        for _ in range(count):
            wallet_id = self._random.choice(self.wallet_ids)
            yield Transfer(
                id=self._uuid(),
                wallet_id=wallet_id,
                to_wallet_id=self._other(wallet_id),
                amount=1,
                currency=CURRENCY,
            )

    def _other(self, wallet_id: UUID) -> UUID:
        while (other := self._random.choice(self.wallet_ids)) == wallet_id:
            pass
        return other

    def _uuid(self) -> UUID:
        return UUID(int=self._random.getrandbits(128), version=4)
