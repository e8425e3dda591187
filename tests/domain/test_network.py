"""Many wallets at once: whatever happens in whatever order, no money comes to be and none is lost."""

import random
from collections.abc import Callable
from uuid import UUID

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec.structs import replace

from mercuria.domain.commands import ClientCommand
from mercuria.domain.events import CommandRejected
from mercuria.domain.rejections import Code

from .network import Network, check_money, check_replay, check_transfers_ended
from .story import MAX, STRANGER, close, deposit, encoded, freeze, open_wallet, transfer, unfreeze, withdraw

WALLETS = [UUID(int=n) for n in range(1, 7)]
OPENED = [(WALLETS[0], "EUR", 0), (WALLETS[1], "EUR", 50), (WALLETS[2], "EUR", MAX), (WALLETS[3], "CZK", 0)]

wallet_ids = st.sampled_from(WALLETS)
amounts = st.integers(1, 300) | st.sampled_from([0, 1, MAX // 2, MAX - 1, MAX])
picks = st.integers(0, 1000)
StatusChange = Callable[..., ClientCommand]
STATUS_CHANGES: list[StatusChange] = [freeze, unfreeze, unfreeze, close]


class Wallets(RuleBasedStateMachine):
    """Six wallets in two partitions, of which four are open, and clients that repeat themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.network = Network(partitions=2)
        self.commands = 0

    def next_id(self) -> UUID:
        self.commands += 1
        return UUID(int=self.commands)

    @initialize()
    def open_wallets(self) -> None:
        for wallet_id, currency, limit in OPENED:
            fields = {"wallet_id": wallet_id, "currency": currency, "overdraft_limit": limit}
            assert not isinstance(
                self.network.send(open_wallet(id=self.next_id(), **fields)), CommandRejected
            )

    @rule(wallet_id=wallet_ids)
    def open(self, wallet_id: UUID) -> None:
        self.network.send(open_wallet(id=self.next_id(), wallet_id=wallet_id))

    @rule(wallet_id=wallet_ids, amount=amounts)
    def deposit(self, wallet_id: UUID, amount: int) -> None:
        self.network.send(deposit(amount, id=self.next_id(), wallet_id=wallet_id))

    @rule(wallet_id=wallet_ids, amount=amounts)
    def withdraw(self, wallet_id: UUID, amount: int) -> None:
        self.network.send(withdraw(amount, id=self.next_id(), wallet_id=wallet_id))

    @rule(wallet_id=wallet_ids)
    def withdraw_all(self, wallet_id: UUID) -> None:
        wallet = self.network.wallets.get(wallet_id)
        amount = wallet.balance if wallet else 1
        self.network.send(withdraw(amount, id=self.next_id(), wallet_id=wallet_id))

    @rule(wallet_id=wallet_ids, to_wallet_id=wallet_ids, amount=amounts)
    def transfer(self, wallet_id: UUID, to_wallet_id: UUID, amount: int) -> None:
        ids = {"id": self.next_id(), "wallet_id": wallet_id, "to_wallet_id": to_wallet_id}
        self.network.send(transfer(amount, **ids))

    @rule(wallet_id=wallet_ids, to_wallet_id=wallet_ids)
    def transfer_all(self, wallet_id: UUID, to_wallet_id: UUID) -> None:
        wallet = self.network.wallets.get(wallet_id)
        self.transfer(wallet_id, to_wallet_id, wallet.balance if wallet else 1)

    @rule(wallet_id=wallet_ids)
    def fill_up(self, wallet_id: UUID) -> None:
        wallet = self.network.wallets.get(wallet_id)
        amount = MAX - wallet.balance - wallet.sent if wallet else 1
        self.deposit(wallet_id, min(amount, MAX))

    @rule(wallet_id=wallet_ids, to_wallet_id=wallet_ids)
    def send_all_and_close(self, wallet_id: UUID, to_wallet_id: UUID) -> None:
        self.transfer_all(wallet_id, to_wallet_id)
        self.change_status(wallet_id, close)

    @rule(wallet_id=wallet_ids, change=st.sampled_from(STATUS_CHANGES))
    def change_status(self, wallet_id: UUID, change: StatusChange) -> None:
        self.network.send(change(id=self.next_id(), wallet_id=wallet_id))

    @rule(wallet_id=wallet_ids, amount=amounts)
    def steal(self, wallet_id: UUID, amount: int) -> None:
        theft = withdraw(amount, id=self.next_id(), wallet_id=wallet_id, actor_id=STRANGER)
        assert isinstance(self.network.send(theft), CommandRejected)

    @precondition(lambda self: self.network.links_in_use())
    @rule(pick=picks)
    def deliver(self, pick: int) -> None:
        links = self.network.links_in_use()
        self.network.deliver(links[pick % len(links)])

    @precondition(lambda self: self.network.sent)
    @rule(pick=picks)
    def retry(self, pick: int) -> None:
        command = self.network.sent[pick % len(self.network.sent)]
        before = dict(self.network.wallets), self.network.in_flight()
        first = self.network.receipts[self.network.partition(command.wallet_id), command.id].event
        assert encoded(self.network.send(command)) == first
        assert (self.network.wallets, self.network.in_flight()) == before

    @precondition(lambda self: self.network.sent)
    @rule(pick=picks)
    def reuse_an_id(self, pick: int) -> None:
        command = self.network.sent[pick % len(self.network.sent)]
        before = dict(self.network.wallets), self.network.in_flight()
        event = self.network.send(replace(command, actor_id=STRANGER))
        if command.actor_id != STRANGER:
            assert isinstance(event, CommandRejected)
            assert event.code == Code.COMMAND_ID_REUSED
        assert (self.network.wallets, self.network.in_flight()) == before

    @precondition(lambda self: self.network.delivered)
    @rule(pick=picks)
    def deliver_twice(self, pick: int) -> None:
        leg = self.network.delivered[pick % len(self.network.delivered)]
        assert not self.network.receive(leg), "a leg counts once"

    @invariant()
    def no_money_came_to_be_or_vanished(self) -> None:
        check_money(self.network)

    def teardown(self) -> None:
        self.network.drain()
        check_money(self.network)
        check_replay(self.network)
        check_transfers_ended(self.network)
        for command in self.network.sent:
            self.network.send(command)
        check_money(self.network)


TestWallets = Wallets.TestCase
TestWallets.settings = settings(max_examples=300, stateful_step_count=60)


def test_a_long_day() -> None:
    """Deeper than hypothesis goes: 30,000 random steps with 40 wallets in 8 partitions."""
    seed = random.randrange(2**32)
    print(f"seed: {seed}")
    chance = random.Random(seed)
    network = Network(partitions=8)
    ids = [UUID(int=n) for n in range(1, 41)]
    for number, wallet_id in enumerate(ids[:-1]):
        limit = chance.choice([0, 0, 500])
        currency = chance.choice(["EUR", "EUR", "EUR", "CZK"])
        network.send(
            open_wallet(id=UUID(int=number), wallet_id=wallet_id, currency=currency, overdraft_limit=limit)
        )
    for number in range(100, 30_100):
        step(network, chance, UUID(int=number), ids)
        if number % 1000 == 0:
            check_money(network)
    network.drain()
    check_money(network)
    check_replay(network)
    check_transfers_ended(network)
    failed = sum(getattr(event, "transaction_status", "") == "failed" for _, _, event in network.decided)
    assert failed > 100, "the day was not eventful enough"


def step(network: Network, chance: random.Random, command_id: UUID, ids: list[UUID]) -> None:
    """Send one command, or let one leg arrive."""
    fields = {"id": command_id, "wallet_id": chance.choice(ids), "currency": chance.choice(["EUR", "CZK"])}
    amount = chance.randrange(1, 400)
    draw = chance.random()
    links = network.links_in_use()
    if links and draw < 0.4:
        network.deliver(chance.choice(links))
    elif draw < 0.7:
        network.send(transfer(amount, **fields, to_wallet_id=chance.choice(ids)))
    elif draw < 0.78:
        network.send(deposit(amount, **fields))
    elif draw < 0.84:
        network.send(withdraw(amount, **fields))
    elif draw < 0.88:
        change = chance.choice(STATUS_CHANGES)
        network.send(change(id=command_id, wallet_id=fields["wallet_id"]))
    elif network.delivered and draw < 0.92:
        assert not network.receive(chance.choice(network.delivered))
    elif network.sent:
        network.send(chance.choice(network.sent))
