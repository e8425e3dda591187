"""Wallets in memory, with partitions, legs on their way, receipts and origin positions, as the agents keep them.

A leg travels on the link from its partition to its receiver's. Each link keeps its order; which link delivers next
is for the test to choose.
"""

from collections import Counter, defaultdict, deque
from dataclasses import dataclass, field
from uuid import UUID

from mercuria.domain.commands import ClientCommand, Credit, Decidable, Leg, Position, Refund, Transfer
from mercuria.domain.events import (
    BalanceUpdated,
    CommandRejected,
    Event,
    StatusChanged,
    WalletCreated,
)
from mercuria.domain.rejections import DETAILS, Code
from mercuria.domain.transfer import react
from mercuria.domain.wallet import Outcome, Wallet, build_event, evaluate, evolve

from .story import MAX, encoded

Link = tuple[int, int]


@dataclass(frozen=True)
class Receipt:
    """What is kept of a client's command."""

    position: Position
    body: bytes
    outcome: Outcome
    event: bytes
    """Only for the test: what was answered at first. The agents do not keep it."""


@dataclass
class Network:
    """Wallets over a number of partitions; `decided` is every decision in its order."""

    partitions: int
    wallets: dict[UUID, Wallet] = field(default_factory=dict)
    links: dict[Link, deque[Leg]] = field(default_factory=lambda: defaultdict(deque))
    delivered: list[Leg] = field(default_factory=list)
    sent: list[ClientCommand] = field(default_factory=list)
    decided: list[tuple[Position, UUID, Event]] = field(default_factory=list)
    receipts: dict[tuple[int, UUID], Receipt] = field(default_factory=dict)
    origins: dict[Link, int] = field(default_factory=dict)
    next_offset: Counter[int] = field(default_factory=Counter)
    brought_in: Counter[str] = field(default_factory=Counter)
    taken_out: Counter[str] = field(default_factory=Counter)

    def partition(self, wallet_id: UUID) -> int:
        return wallet_id.int % self.partitions

    def send(self, command: ClientCommand) -> Event:
        """Return the event of a client's command: of its first sending, if it was sent before."""
        position = self._next_position(command.wallet_id)
        receipt = self.receipts.get((position.partition, command.id))
        if receipt is None:
            self.sent.append(command)
            return self._decide(command, position)
        if receipt.body != encoded(command):
            reused = Code.COMMAND_ID_REUSED
            return CommandRejected(offset=position.offset, code=reused, detail=DETAILS[reused])
        wallet = self.wallets.get(command.wallet_id)
        event = build_event(command, wallet, receipt.outcome, receipt.position)
        assert encoded(event) == receipt.event, "a retry gets the first answer"
        return event

    def links_in_use(self) -> list[Link]:
        return sorted(link for link, legs in self.links.items() if legs)

    def deliver(self, link: Link) -> None:
        """Take the first leg off a link, and have its receiver decide it."""
        leg = self.links[link].popleft()
        self.delivered.append(leg)
        self.receive(leg)

    def receive(self, leg: Leg) -> bool:
        """Decide a leg, unless it came before; return whether it was new."""
        position = self._next_position(leg.wallet_id)
        link = leg.origin.partition, position.partition
        if leg.origin.offset <= self.origins.get(link, -1):
            return False
        self.origins[link] = leg.origin.offset
        assert isinstance(leg, Credit | Refund)
        self._decide(leg, position)
        return True

    def drain(self) -> None:
        """Deliver all legs, and those that follow from them."""
        while links := self.links_in_use():
            self.deliver(links[0])

    def in_flight(self) -> Counter[str]:
        """Return what is between wallets, per currency."""
        total: Counter[str] = Counter()
        for legs in self.links.values():
            for leg in legs:
                assert isinstance(leg, Credit | Refund)
                total[leg.currency] += leg.amount
        return total

    def _next_position(self, wallet_id: UUID) -> Position:
        partition = self.partition(wallet_id)
        self.next_offset[partition] += 1
        offset = self.next_offset[partition]
        return Position(partition, offset, 1_700_000_000_000 + offset)

    def _decide(self, command: Decidable, position: Position) -> Event:
        wallet = self.wallets.get(command.wallet_id)
        outcome = evaluate(command, wallet)
        event = build_event(command, wallet, outcome, position)
        if isinstance(command, ClientCommand):
            receipt = Receipt(position, encoded(command), outcome, encoded(event))
            self.receipts[position.partition, command.id] = receipt
        self._apply(command, wallet, event, position)
        leg = react(command, event, position)
        if leg is not None:
            self.links[position.partition, self.partition(leg.wallet_id)].append(leg)
        return event

    def _apply(self, command: Decidable, wallet: Wallet | None, event: Event, position: Position) -> None:
        self.decided.append((position, command.wallet_id, event))
        after = evolve(wallet, event, position.time_ms)
        if isinstance(event, CommandRejected):
            assert after is wallet
            return
        assert after is not None
        assert event.version == after.version == (wallet.version if wallet else 0) + 1
        assert event.balance == after.balance
        self.wallets[command.wallet_id] = after
        if isinstance(event, BalanceUpdated) and event.kind == "deposit":
            self.brought_in[event.currency] += event.amount
        if isinstance(event, BalanceUpdated) and event.kind == "withdrawal":
            self.taken_out[event.currency] += event.amount


def check_money(network: Network) -> None:
    """Check that no money came to be or vanished, and that no wallet is beyond its limits."""
    held: Counter[str] = Counter()
    for wallet in network.wallets.values():
        held[wallet.currency] += wallet.balance
        assert -wallet.overdraft_limit <= wallet.balance <= MAX
        assert 0 <= wallet.sent <= MAX
        assert wallet.balance + wallet.sent <= MAX, "a refund always fits"
        assert wallet.status != "closed" or wallet.balance == 0
    flying = network.in_flight()
    for currency in {*held, *flying, *network.brought_in}:
        moved = network.brought_in[currency] - network.taken_out[currency]
        assert held[currency] + flying[currency] == moved, currency


def check_replay(network: Network) -> None:
    """Check that the events alone give the same wallets."""
    wallets: dict[UUID, Wallet] = {}
    for position, wallet_id, event in network.decided:
        wallet = evolve(wallets.get(wallet_id), event, position.time_ms)
        if wallet is not None:
            wallets[wallet_id] = wallet
    assert wallets == network.wallets


def check_transfers_ended(network: Network) -> None:
    """Check, when nothing is on its way any more, that each transfer's money is in exactly one wallet."""
    moved = _movements(network)
    debited = {
        (network.partition(it.wallet_id), it.id): it
        for it in network.sent
        if isinstance(it, Transfer) and network.receipts[network.partition(it.wallet_id), it.id].outcome.code is None
    }  # fmt: skip
    ends: dict[UUID, list[BalanceUpdated]] = defaultdict(list)
    for _, _, event in network.decided:
        if isinstance(event, BalanceUpdated) and event.kind == "transfer":
            ends[event.transaction_id].append(event)
    assert len(ends) == len(debited)
    for transfer in debited.values():
        first, last = ends[transfer.id]
        assert (first.transaction_status, first.wallet_id) == ("pending", transfer.wallet_id)
        if last.transaction_status == "completed":
            assert moved[transfer.id] == {
                transfer.wallet_id: -transfer.amount,
                transfer.to_wallet_id: transfer.amount,
            }
        else:
            assert last.transaction_status == "failed"
            assert last.failure is not None
            assert moved[transfer.id] == {transfer.wallet_id: 0}


def _movements(network: Network) -> dict[UUID, Counter[UUID]]:
    """Return what each transaction did to each balance, from the balances that the events tell."""
    balances: Counter[UUID] = Counter()
    moved: dict[UUID, Counter[UUID]] = defaultdict(Counter)
    for _, wallet_id, event in network.decided:
        if isinstance(event, BalanceUpdated):
            moved[event.transaction_id][wallet_id] += event.balance - balances[wallet_id]
        if isinstance(event, BalanceUpdated | StatusChanged | WalletCreated):
            balances[wallet_id] = event.balance
    return moved
