"""Where a batch begins and ends, and what a crash leaves behind, changes nothing in what is decided."""

from collections.abc import Iterator, Sequence
from random import Random
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from mercuria.agents.batch import Batch, Installation
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
from mercuria.domain.parsing import read_command
from mercuria.kafka.cloudevents import read_event
from mercuria.kafka.partitioning import Partitioner
from mercuria.kafka.sealing import Seal
from mercuria.redis.replies import Address
from mercuria.tables.balance_rows import AppliedPosition
from mercuria.topics import WALLET_COMMANDS

PARTITIONS = 3
LIFETIME_MS = 1000
NODE = "0123456789abcdef" * 2
INSTALLATION = Installation(Partitioner(PARTITIONS), LIFETIME_MS, Seal(bytes(32)))

Output = tuple[str, int, Any]
"""Topic, partition, record."""


class LogRecord(NamedTuple):
    """A record of the command topic."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()


class Partition:
    """One partition's tables, in memory."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.wallets: dict[int, Any] = {}
        self.receipts: dict[int, Any] = {}
        self.position = AppliedPosition()

    def decide(self, records: Sequence[LogRecord], *, is_behind: bool = False) -> Batch:
        """Decide records, from the first on, as many as one batch takes."""
        known, receipts = AllKnown(self.wallets), dict(self.receipts)
        batch = Batch(INSTALLATION, self.number, self.position, known, receipts, is_behind=is_behind)
        for record in records:
            if batch.take(record, read_command(record.value)) is False or batch.is_full:
                break
        return batch

    def copy(self) -> "Partition":
        """Return a partition with the same tables."""
        copy = Partition(self.number)
        copy.wallets, copy.receipts = dict(self.wallets), dict(self.receipts)
        copy.position = self.position
        return copy

    def keep(self, batch: Batch) -> None:
        """Make a batch part of the tables."""
        self.receipts.update(batch.receipts)
        self.wallets.update(batch.wallets)
        self.position = batch.position


class AllKnown(dict[int, Any]):
    """Knows that a wallet which is not there does not exist."""

    def __missing__(self, number: int) -> None:
        return None


class World:
    """All partitions with their logs, decided a record at a time: what must come out, whatever the batches are."""

    def __init__(self, random: Random, pauses_ms: Sequence[int] = (0, 1, 5, 400)) -> None:
        self.logs: list[list[LogRecord]] = [[] for _ in range(PARTITIONS)]
        self.outputs: list[list[Output]] = [[] for _ in range(PARTITIONS)]
        self._partitions = [Partition(number) for number in range(PARTITIONS)]
        self._random = random
        self._time_ms = 10**12
        self._pauses_ms = pauses_ms

    def run(self, commands: Iterator[tuple[ClientCommand, int]]) -> None:
        """Put commands on the log, with pauses, and decide them one by one."""
        for command, partition in commands:
            key = INSTALLATION.partitioner.of(command.wallet_id).key
            # Some are waited for, over HTTP.
            number = len(self.logs[partition])
            value = msgspec.json.encode(command)
            address = Address(NODE, number)
            headers = [address.header(value, INSTALLATION.seal)] if self._random.random() < 0.5 else []
            self._append(partition, key, value, headers)
            if self._random.random() < 0.6:
                self._step(self._random.choice(self._partitions))
        while any(self._step(partition) for partition in self._partitions):
            pass

    def _append(
        self, partition: int, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes]]
    ) -> None:
        self._time_ms += self._random.choice(self._pauses_ms)
        log = self.logs[partition]
        log.append(LogRecord(WALLET_COMMANDS, partition, len(log), self._time_ms, key, value, headers))

    def _step(self, partition: Partition) -> bool:
        waiting = self.logs[partition.number][partition.position.offset + 1 :]
        if not waiting:
            return False
        batch = partition.decide(waiting[:1])
        partition.keep(batch)
        self.outputs[partition.number] += outputs_of(batch)
        for route, legs in batch.outputs.legs.items():
            for leg in legs:
                self._append(route, leg.key, leg.value, leg.headers)
        return True


def outputs_of(batch: Batch) -> list[Output]:
    """Return all that a batch sends, topic by topic."""
    events = [("events", batch.partition, record) for record in batch.outputs.events]
    dead = [("dead", batch.partition, record) for record in batch.outputs.dead_letters]
    legs = [("legs", route, record) for route, records in batch.outputs.legs.items() for record in records]
    return events + dead + legs


def by_topic(outputs: Sequence[Output]) -> dict[tuple[str, int], list[Any]]:
    """Return outputs by topic and partition: Kafka keeps no other order."""
    sorted_out: dict[tuple[str, int], list[Any]] = {}
    for topic, partition, record in outputs:
        sorted_out.setdefault((topic, partition), []).append(record)
    return sorted_out


def commands(random: Random, count: int) -> Iterator[tuple[ClientCommand, int]]:
    """Yield commands that get in each other's way: few wallets, few ids, some in a wrong partition."""
    wallet_ids = [UUID(int=random.getrandbits(128)) for _ in range(4)]
    ids = [UUID(int=random.getrandbits(128)) for _ in range(max(4, count // 3))]
    earlier: list[ClientCommand] = []
    for index in range(count):
        wallet_id = wallet_ids[index] if index < len(wallet_ids) else random.choice(wallet_ids)
        command = random_command(random, wallet_id, random.choice(wallet_ids), random.choice(ids), index)
        if earlier and random.random() < 0.4:
            command = random.choice(earlier)
        earlier.append(command)
        route = INSTALLATION.partitioner.of(command.wallet_id).partition
        yield command, route if random.random() < 0.9 else random.randrange(PARTITIONS)


def random_command(random: Random, wallet_id: UUID, other_id: UUID, id_: UUID, index: int) -> ClientCommand:
    if index < 4 or random.random() < 0.1:
        return OpenWallet(id=id_, wallet_id=wallet_id, owner_id=id_, currency="EUR", overdraft_limit=50)
    amount = random.randint(0, 40)
    kind = random.choice(
        [Deposit, Withdraw, Transfer, Transfer, FreezeWallet, UnfreezeWallet, CloseWallet, SetLimits]
    )
    if kind is SetLimits:
        return SetLimits(id=id_, wallet_id=wallet_id, overdraft_limit=amount)
    effective_at = random.choice([None, "2021-03-04T00:00:00.000Z"])
    if kind is Transfer:
        return Transfer(
            id=id_,
            wallet_id=wallet_id,
            to_wallet_id=other_id,
            amount=amount,
            currency="EUR",
            effective_at=effective_at,
        )
    if kind in (Deposit, Withdraw):
        return kind(id=id_, wallet_id=wallet_id, amount=amount, currency="EUR", effective_at=effective_at)
    return kind(id=id_, wallet_id=wallet_id)


@given(st.integers(0, 2**32))
@settings(deadline=None, max_examples=300)
def test_batches_of_any_size_and_crashes_between_give_the_same_bytes(seed: int) -> None:
    random = Random(seed)
    world = World(random)
    world.run(commands(random, 40))
    for number, log in enumerate(world.logs):
        expected = by_topic(world.outputs[number])
        assert by_topic(replay(number, log, random, expected)) == expected


def replay(
    number: int, log: Sequence[LogRecord], random: Random, expected: dict[tuple[str, int], list[Any]]
) -> list[Output]:
    """Decide a partition's log in batches of any size, and often crash after a batch was sent.

    A batch is decided on top of the one before, which may not be kept yet: then a crash has both decided again.
    """
    durable, latest = Partition(number), Partition(number)
    kept: list[Output] = []
    behind: tuple[Batch, list[Output]] | None = None
    while durable.position.offset + 1 < len(log):
        if behind is not None and (random.random() < 0.5 or latest.position.offset + 1 == len(log)):
            durable.keep(behind[0])
            kept, behind = behind[1], None
            continue
        start = latest.position.offset + 1
        batch = latest.decide(log[start : start + random.randint(1, 12)], is_behind=behind is not None)
        if batch.offset < start:
            assert behind is not None, "only a batch behind another one may have to wait"
            durable.keep(behind[0])
            kept, behind = behind[1], None
            continue
        sent = (behind[1] if behind else kept) + outputs_of(batch)
        for place, records in by_topic(sent).items():
            assert records == expected[place][: len(records)], "what is sent is sent as the first time"
        crash = random.random()
        if crash < 0.5:
            if crash < 0.3:
                # Killed when the receipts were in their changelog, and the position was not.
                durable.receipts.update(batch.receipts)
            latest, behind = durable.copy(), None
            continue
        # The receipts are in their changelog before the next batch is decided; the wallets and the position may not be.
        if behind is not None:
            durable.keep(behind[0])
            kept = behind[1]
        latest.keep(batch)
        durable.receipts.update(batch.receipts)
        behind = (batch, sent)
    return kept


def deposit(id_: int, amount: int = 5) -> Deposit:
    return Deposit(id=UUID(int=id_), wallet_id=WALLET_ID, amount=amount, currency="EUR")


WALLET_ID = UUID(int=1)


def answers(*asked: tuple[int, ClientCommand]) -> list[Any]:
    """Return the events for commands to one wallet, each at its time, in ms."""
    route = INSTALLATION.partitioner.of(WALLET_ID)
    partition = Partition(route.partition)
    opening = OpenWallet(id=UUID(int=99), wallet_id=WALLET_ID, owner_id=UUID(int=98), currency="EUR")
    records = [
        LogRecord(WALLET_COMMANDS, route.partition, offset, at_ms, route.key, msgspec.json.encode(command))
        for offset, (at_ms, command) in enumerate([(0, opening), *asked])
    ]
    events: list[Any] = []
    while partition.position.offset < len(asked):
        batch = partition.decide(records[partition.position.offset + 1 :])
        partition.keep(batch)
        events += [record.value for record in batch.outputs.events]
    return events[1:]


def test_a_command_sent_twice_gets_its_first_answer_byte_for_byte() -> None:
    first, between, again = answers((0, deposit(7)), (1, deposit(8)), (2, deposit(7)))
    assert again == first != between


def test_another_command_under_the_same_id_is_refused() -> None:
    _, other, again = map(read_event, answers((0, deposit(7)), (1, deposit(7, 6)), (2, deposit(7))))
    assert other.code == "command_id_reused"
    assert (again.amount, again.balance) == (5, 5)


def test_a_refusal_is_an_answer_too() -> None:
    too_much = Withdraw(id=UUID(int=7), wallet_id=WALLET_ID, amount=5, currency="EUR")
    first, _, again = answers((0, too_much), (1, deposit(8)), (2, too_much))
    assert again == first and read_event(again).code == "insufficient_funds"


def test_an_id_is_remembered_for_the_life_of_its_receipt_and_not_longer() -> None:
    *_, last_moment, later = answers(
        (0, deposit(7)), (LIFETIME_MS, deposit(7)), (LIFETIME_MS + 1, deposit(7))
    )
    assert read_event(last_moment).balance == 5
    assert read_event(later).balance == 10
