"""Logs of events for the tests: of random commands that get in each other's way, with all that is told again."""

from collections.abc import Iterator
from random import Random
from types import SimpleNamespace
from typing import Any
from uuid import UUID

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
from mercuria.kafka.cloudevents import read_wallet_event
from mercuria.kafka.transport import Fetched
from mercuria.projections.rows import SourceEvent
from mercuria.projections.wallets.rows import Rows
from mercuria.projections.wallets.store import WalletTables
from tests.projections.model import Model
from tests.protocol.test_batches import INSTALLATION, PARTITIONS, World

TEXTS = (
    "",
    "Miete",
    "a\tb",
    "a\nb\r\n",
    "\\N",
    "\\",
    'say "x"',
    "{a,b}",
    "€ ß 漢 😀",
    "NULL",
    "%(x)s %s",
    "\x01\x7f",
)
"""What COPY, arrays, JSON and psycopg2 might read as something else."""

MOMENTS = (
    "0001-01-01T00:00:00.000Z",
    "1969-12-31T23:59:59.999Z",
    "2021-03-04T00:00:00.000Z",
    "2021-03-04T23:59:59.999Z",
    "9999-12-31T23:59:59.999Z",
)
"""Effective dates, also the first and the last one."""

Log = list[list[bytes]]
"""By partition, the records of the event topic."""


def random_log(random: Random, count: int) -> Log:
    """Return the events of some commands, of which some are told again later."""
    world = World(random)
    world.run(commands(random, count))
    return [
        told_again(random, [record.value for topic, _, record in outputs if topic == "events"])
        for outputs in world.outputs
    ]


def told_again(random: Random, events: list[bytes]) -> list[bytes]:
    """Put some events in once more behind themselves, as a zombie writer or a crash does."""
    told: list[bytes] = []
    for event in events:
        told.append(event)
        if random.random() < 0.1:
            start = random.randrange(len(told))
            told += told[start : start + random.randint(1, 5)]
    return told


def commands(random: Random, count: int) -> Iterator[tuple[ClientCommand, int]]:
    """Yield commands of a few people to a few wallets, some to a wrong partition, some twice."""
    clients = [UUID(int=random.getrandbits(128)) for _ in range(3)]
    wallet_ids = [_wallet_id(random, index % PARTITIONS) for index in range(2 * PARTITIONS)]
    earlier: list[ClientCommand] = []
    for index in range(count):
        command = _command(random, index, wallet_ids, clients)
        if earlier and random.random() < 0.1:
            command = random.choice(earlier)
        earlier.append(command)
        route = INSTALLATION.partitioner.of(command.wallet_id).partition
        yield command, route if random.random() < 0.95 else random.randrange(PARTITIONS)


def _wallet_id(random: Random, partition: int) -> UUID:
    """Return the id of a wallet in a partition."""
    while True:
        wallet_id = UUID(int=random.getrandbits(128))
        if INSTALLATION.partitioner.of(wallet_id).partition == partition:
            return wallet_id


def _command(random: Random, index: int, wallet_ids: list[UUID], clients: list[UUID]) -> ClientCommand:
    id_ = UUID(int=random.getrandbits(128))
    actor_id = random.choice([None, None, *clients])
    metadata = {"note": random.choice(TEXTS)} if random.random() < 0.3 else {}
    if index < len(wallet_ids) - 1:
        return OpenWallet(
            id=id_,
            wallet_id=wallet_ids[index],
            owner_id=random.choice(clients),
            currency=random.choice(["EUR", "EUR", "EUR", "JPY"]),
            overdraft_limit=random.choice([0, 50]),
            metadata=metadata,
        )
    wallet_id, other_id = random.choice(wallet_ids), random.choice(wallet_ids)
    kind = random.choice([Deposit, Deposit, Withdraw, Transfer, Transfer, Transfer, None])
    if kind is None:
        if random.random() < 0.3:
            return SetLimits(
                id=id_,
                wallet_id=wallet_id,
                overdraft_limit=random.randint(0, 60),
                reason=random.choice(TEXTS),
            )
        status = random.choice([FreezeWallet, UnfreezeWallet, UnfreezeWallet, CloseWallet])
        return status(id=id_, wallet_id=wallet_id, actor_id=actor_id, reason=random.choice([None, *TEXTS]))
    movement: dict[str, Any] = {
        "id": id_,
        "wallet_id": wallet_id,
        "actor_id": actor_id,
        "amount": random.randint(-1, 40),
        "currency": random.choice([None, None, "EUR", "E\tR"]),
        "reference": random.choice([None, *TEXTS]),
        "metadata": metadata,
        "effective_at": random.choice([None, None, *MOMENTS]),
    }
    return Transfer(to_wallet_id=other_id, **movement) if kind is Transfer else kind(**movement)


def fetched(log: Log, partition: int, start: int, end: int) -> Fetched:
    """Return the records of a partition from one offset to before another, as a fetch has them."""
    records = enumerate(log[partition][start:end], start)
    return Fetched(
        [SimpleNamespace(offset=offset, value=value, key=None, headers=[]) for offset, value in records],
        start,
    )


def model_of(log: Log) -> Model:
    """Return what has to become of a log."""
    model = Model()
    for partition, events in enumerate(log):
        for event in events:
            model.take(partition, event)
    return model


def bring_in(log: Log, writer: WalletTables) -> None:
    """Write all of a log at once."""
    rows = Rows(writer.begin(range(len(log))))
    for partition, events in enumerate(log):
        rows.take(partition, told(fetched(log, partition, 0, len(events))))
    writer.write(rows.payload(), rows.moved)


def told(records: Fetched) -> list[SourceEvent]:
    """Read the events of a fetch."""
    return [SourceEvent(*read_wallet_event(record.value), record.offset) for record in records]
