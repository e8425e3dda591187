"""The auditor's view of the money: wallets, transfers and sums, folded from the events alone."""

from collections import defaultdict
from typing import NamedTuple
from uuid import UUID

from msgspec import Struct

from mercuria.domain.events import (
    Accepted,
    BalanceUpdated,
    LimitsChanged,
    Status,
    StatusChanged,
    WalletCreated,
)
from tests.harness.audit.violations import Violations


class _Transfer(NamedTuple):
    """What the events of one transfer have in common. Its id may be another one's when receipts have expired."""

    id: UUID
    sender: UUID
    amount: int
    currency: str


class WalletState(Struct):
    """A wallet according to its events. Amounts are minor units, `sent` those of transfers that did not come back."""

    currency: str
    version: int
    balance: int
    sent: int
    status: Status
    overdraft_limit: int = 0


class Totals(Struct):
    """One currency's money, in minor units."""

    balances: int = 0
    in_flight: int = 0
    deposits: int = 0
    withdrawals: int = 0

    @property
    def is_conserved(self) -> bool:
        """Whether what is there is what came in and did not go out."""
        return self.balances + self.in_flight == self.deposits - self.withdrawals


class Money:
    """Versions, balances and transfers, as the events have them."""

    def __init__(self, violations: Violations) -> None:
        self.wallets: dict[UUID, WalletState] = {}
        self.transfers = 0
        self.refunds = 0
        self._violations = violations
        self._flows: defaultdict[str, Totals] = defaultdict(Totals)
        # How many debits are without an end. Below 0 where an end was read first, since another partition has it.
        self._open: dict[_Transfer, int] = {}

    def take(self, id_: str, event: Accepted) -> None:
        """Take an accepted event that was not there before; `id_` is its name."""
        wallet = self.wallets.get(event.wallet_id)
        if wallet is None:
            currency = "" if isinstance(event, StatusChanged | LimitsChanged) else event.currency
            wallet = self.wallets[event.wallet_id] = WalletState(currency, 0, 0, 0, "open")
        self._check_version(id_, wallet, event)
        change = self._flow(wallet, event) if type(event) is BalanceUpdated else 0
        if event.balance != wallet.balance + change:
            self._violations.add(
                f"Event {id_}: wallet {event.wallet_id} has {event.balance} after {wallet.balance} and {change:+}."
            )
        if type(event) is WalletCreated or type(event) is LimitsChanged:
            wallet.overdraft_limit = event.overdraft_limit
        elif change < 0 and event.balance < -wallet.overdraft_limit:
            # Where a limit was changed, the balance may be below it; nothing may leave then.
            self._violations.add(
                f"Event {id_}: wallet {event.wallet_id} has {event.balance}, below its limit of"
                f" {-wallet.overdraft_limit}."
            )
        wallet.version, wallet.balance, wallet.status = event.version, event.balance, event.status

    @property
    def totals(self) -> dict[str, Totals]:
        """Each currency's money, after all events so far."""
        return {currency: self._totals(currency) for currency in sorted(self._flows)}

    def check_sums(self, violations: Violations) -> None:
        """Report which currency's money is not conserved: it is after every event, in whatever order they come."""
        for currency, total in self.totals.items():
            if not total.is_conserved:
                violations.add(
                    f"{currency} is not conserved: {total.balances} in wallets and {total.in_flight} in flight,"
                    f" from {total.deposits} deposited and {total.withdrawals} withdrawn."
                )

    def close(self, violations: Violations) -> None:
        """Report what is open at the end of the logs, and whether the sums are right."""
        for transfer, count in self._open.items():
            what = "debited and never ended" if count > 0 else "ended twice, or undebited"
            violations.add(f"Transfer {transfer.id} of {transfer.amount} {transfer.currency} is {what}.")
        self.check_sums(violations)

    def _totals(self, currency: str) -> Totals:
        flows = self._flows[currency]
        balances = sum(wallet.balance for wallet in self.wallets.values() if wallet.currency == currency)
        in_flight = sum(
            count * transfer.amount for transfer, count in self._open.items() if transfer.currency == currency
        )
        return Totals(balances, in_flight, flows.deposits, flows.withdrawals)

    def _check_version(self, id_: str, wallet: WalletState, event: Accepted) -> None:
        if event.version == wallet.version + 1:
            return
        what = "misses versions" if event.version > wallet.version else "has a version twice"
        self._violations.add(
            f"Event {id_}: wallet {event.wallet_id} {what}: {event.version} comes after {wallet.version}."
        )

    def _flow(self, wallet: WalletState, event: BalanceUpdated) -> int:
        """Count where the money goes, and return what the event adds to the balance."""
        flows = self._flows[event.currency]
        if event.kind == "deposit":
            flows.deposits += event.amount
            return event.amount
        if event.kind == "withdrawal":
            flows.withdrawals += event.amount
            return -event.amount
        assert event.from_wallet is not None, "a transfer has a sender"
        transfer = _Transfer(event.transaction_id, event.from_wallet.wallet_id, event.amount, event.currency)
        if event.transaction_status == "pending":
            self.transfers += 1
            wallet.sent += event.amount
            self._count(transfer, +1)
            return -event.amount
        if event.transaction_status == "failed":
            self.refunds += 1
            wallet.sent -= event.amount
        self._count(transfer, -1)
        return event.amount

    def _count(self, transfer: _Transfer, change: int) -> None:
        """Count a debit or an end; what is even is forgotten, so that only open transfers take memory."""
        count = self._open.get(transfer, 0) + change
        if count:
            self._open[transfer] = count
        else:
            del self._open[transfer]
