"""What chaos is made of, on the client's side: wallets, commands for them, and who waits for the answers.

The same seed gives the same commands, ids included.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from itertools import islice
from random import Random
from uuid import UUID

import msgspec
from aiokafka import AIOKafkaConsumer

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
from mercuria.domain.events import BalanceUpdated, Event
from mercuria.kafka.client import CommandProducer
from mercuria.kafka.cloudevents import read_event

CURRENCIES = ("EUR", "JPY")
FUNDS = 10_000
"""So little that some wallets run out."""

EFFECTIVE_AT = "2021-03-04T00:00:00.000Z"

TICK_S = 0.02
MADE_UP_S = 0.5
"""So much of a pause is made up for: what a busy machine delays still comes at the rate."""
MAX_IN_FLIGHT = 8_000
"""So many commands may be unanswered. More would only make the last answers late."""
REMEMBERED = 2_000
"""A command is sent again while it is one of so many latest."""


class Load:
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


class Waiting:
    """The clients that wait: which commands have no answer yet, and which transfers have no end."""

    def __init__(self) -> None:
        self.sent = 0
        self.answered = 0
        self.longest_pause_s = 0.0
        self._unanswered: dict[UUID, float] = {}
        self._waits_s: list[float] = []
        self._transfers: set[UUID] = set()
        self._last: dict[int, int] = {}
        self._last_answer_s = time.monotonic()

    @property
    def unanswered(self) -> int:
        """How many commands have no answer."""
        return len(self._unanswered)

    @property
    def open(self) -> int:
        """How many commands have no answer, or are transfers that have not ended."""
        return len(self._unanswered) + len(self._transfers)

    @property
    def answered_to_s(self) -> float:
        """Up to which moment of the monotonic clock all that was sent is answered."""
        return next(iter(self._unanswered.values()), time.monotonic())

    def expect(self, command: ClientCommand) -> None:
        """Wait for the answer to a command that is sent now, as it was perhaps before."""
        now_s = time.monotonic()
        if not self._unanswered:
            self._last_answer_s = now_s
        self._unanswered.setdefault(command.id, now_s)
        self.sent += 1

    def take_waits_s(self) -> list[float]:
        """Return how long each command has waited that was answered since somebody asked last."""
        waits_s, self._waits_s = self._waits_s, []
        return waits_s

    def take(self, partition: int, event: Event) -> None:
        """Take an event of a partition."""
        now_s = time.monotonic()
        if self._unanswered:
            self.longest_pause_s = max(self.longest_pause_s, now_s - self._last_answer_s)
        self._last_answer_s = now_s
        id_ = event.transaction_id if isinstance(event, BalanceUpdated) else event.command_id
        if id_ is not None and id_ in self._unanswered:
            self._waits_s.append(now_s - self._unanswered.pop(id_))
            self.answered += 1
        # What comes again was there before: events of a partition come in their order.
        if event.offset > self._last.get(partition, -1):
            self._last[partition] = event.offset
            self._follow(event)

    def _follow(self, event: Event) -> None:
        if isinstance(event, BalanceUpdated) and event.kind == "transfer":
            # A debit opens the transfer, the other event ends it; which of them is read first is chance.
            self._transfers ^= {event.transaction_id}


async def send(
    commands: Iterator[ClientCommand],
    producer: CommandProducer,
    waiting: Waiting,
    rate_per_s: float,
    is_over: Callable[[], bool],
) -> None:
    """Send commands at a rate until `is_over`, as long as not too many are unanswered."""
    due, counted_s = 0.0, time.monotonic()
    while not is_over():
        now_s = time.monotonic()
        # What a long pause has held up is not made up for.
        due, counted_s = due + min(now_s - counted_s, MADE_UP_S) * rate_per_s, now_s
        if due >= 1 and waiting.unanswered < MAX_IN_FLIGHT:
            some = list(islice(commands, int(due)))
            if not some:
                return
            due -= len(some)
            for command in some:
                waiting.expect(command)
            await producer.send(some)
        due = min(due, MADE_UP_S * rate_per_s)
        await asyncio.sleep(max(0.0, counted_s + TICK_S - time.monotonic()))


async def listen(reader: AIOKafkaConsumer, waiting: Waiting) -> None:
    """Take events until cancelled."""
    while True:
        for tp, records in (await reader.getmany(timeout_ms=50, max_records=2000)).items():
            for record in records:
                waiting.take(tp.partition, read_event(record.value))
