"""The auditor finds what it is there for: it reports each way to spoil a log."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain, islice
from random import Random
from typing import Any
from uuid import UUID

import msgspec
import pytest
from msgspec.structs import replace

from mercuria.domain.commands import ClientCommand, Deposit, OpenWallet, SetLimits, Withdraw
from mercuria.kafka.sealing import Seal
from tests.harness.audit.auditor import Audit, Auditor
from tests.harness.audit.violations import MAX_VIOLATIONS
from tests.harness.chaos.kafka.generator import CommandGenerator
from tests.protocol.test_batches import INSTALLATION, LIFETIME_MS, PARTITIONS, World

Events = list[tuple[int, Any]]
"""Partition and record, in the order in which they are read."""


def log_of(seed: int) -> tuple[World, Events]:
    """Return a world in which much has happened, and its events, of one partition after the other."""
    random = Random(seed)
    world = World(random, pauses_ms=(0, 1))
    world.run(scattered(random))
    events = [
        (partition, record)
        for outputs in world.outputs
        for topic, partition, record in outputs
        if topic == "events"
    ]
    return world, events


def scattered(random: Random) -> Iterator[tuple[ClientCommand, int]]:
    """Yield the commands of chaos, some of them to a wrong partition."""
    generator = CommandGenerator(random, wallets=30)
    for command in chain(generator.opening(), islice(generator.commands(), 600)):
        route = INSTALLATION.partitioner.of(command.wallet_id).partition
        yield command, route if random.random() < 0.95 else random.randrange(PARTITIONS)


def audit(world: World, events: Events, *, with_commands: bool = True) -> Audit:
    """Audit a world's commands and some events."""
    auditor = Auditor(PARTITIONS, Seal(bytes(32)), LIFETIME_MS)
    for take in chain(event_calls(auditor, events), command_calls(auditor, world) if with_commands else ()):
        take()
    return auditor.report()


def audit_meanwhile(world: World, events: Events, random: Random) -> Auditor:
    """Pass both logs to an auditor in turns, and check its progress all the time."""
    auditor = Auditor(PARTITIONS, Seal(bytes(32)), LIFETIME_MS)
    logs = [list(event_calls(auditor, events)), list(command_calls(auditor, world))]
    while any(logs):
        log = random.choice([log for log in logs if log])
        some = random.randint(1, 50)
        for take in log[:some]:
            take()
        del log[:some]
        auditor.check_progress()
    return auditor


def event_calls(auditor: Auditor, events: Events) -> Iterator[Callable[[], None]]:
    """Yield calls that pass each event to an auditor."""
    offsets = [0] * PARTITIONS
    for partition, record in events:
        yield partial(auditor.take_event, partition, offsets[partition], record.value, key=record.key)
        offsets[partition] += 1


def command_calls(auditor: Auditor, world: World) -> Iterator[Callable[[], None]]:
    """Yield calls that pass each command to an auditor."""
    for record in chain.from_iterable(world.logs):
        yield partial(
            auditor.take_command,
            record.partition,
            record.offset,
            record.value,
            key=record.key,
            time_ms=record.timestamp,
        )


def index_of(events: Events, words: bytes) -> int:
    """Return the place of an event that holds some words, from some place on."""
    some = len(events) // 4
    places = [*range(some, len(events)), *range(some)]
    return next(index for index in places if words in events[index][1].value)


def changed(record: Any, **fields: Any) -> Any:
    """Return the record of an event with other data."""
    envelope = msgspec.json.decode(record.value)
    envelope["data"] |= fields
    return replace(record, value=msgspec.json.encode(envelope))


def lose(words: bytes) -> Callable[[Events], None]:
    """Return what loses an event."""
    return lambda events: events.pop(index_of(events, words)) and None


def spoil(words: bytes, **changes: Callable[[Any], Any]) -> Callable[[Events], None]:
    """Return what changes an event's data."""

    def do(events: Events) -> None:
        index = index_of(events, words)
        partition, record = events[index]
        data = msgspec.json.decode(record.value)["data"]
        events[index] = partition, changed(record, **{name: to(data[name]) for name, to in changes.items()})

    return do


def repeat_differently(events: Events) -> None:
    partition, record = events[index_of(events, DEPOSIT)]
    events.append((partition, changed(record, reference="another")))


def invent(events: Events) -> None:
    partition, record = events[index_of(events, DEPOSIT)]
    envelope = msgspec.json.decode(record.value)
    envelope["id"] = f"{partition}-100000"
    envelope["data"]["offset"] = 100000
    events.append((partition, replace(record, value=msgspec.json.encode(envelope))))


def misname(events: Events) -> None:
    index = index_of(events, DEPOSIT)
    partition, record = events[index]
    events[index] = partition, replace(record, value=record.value.replace(b'"id":"', b'"id":"9', 1))


def rekey(events: Events) -> None:
    index = index_of(events, DEPOSIT)
    partition, record = events[index]
    events[index] = partition, replace(record, key=b"another")


DEPOSIT = b'"kind":"deposit"'
DEBIT = b'"transaction_status":"pending"'
CREDIT = b'"kind":"transfer","transaction_status":"completed"'
REFUND = b'"transaction_status":"failed"'
REJECTION = b"wallet.command_rejected"
REUSED = b"command_id_reused"

SPOILED = {
    "a deposit is lost": (lose(DEPOSIT), "never answered"),
    "a rejection is lost": (lose(REJECTION), "never answered"),
    "a credit is lost": (lose(CREDIT), "debited and never ended"),
    "a refund is lost": (lose(REFUND), "debited and never ended"),
    "a debit is lost": (lose(DEBIT), "ended twice, or undebited"),
    "an event is repeated and differs": (repeat_differently, "with another content"),
    "an event answers nothing": (invent, "answers nothing"),
    "a version is doubled": (spoil(DEPOSIT, version=lambda version: version - 1), "has a version twice"),
    "a version is missing": (spoil(DEPOSIT, version=lambda version: version + 1), "misses versions"),
    "a balance is wrong": (spoil(DEPOSIT, balance=lambda balance: balance + 1), "has "),
    "a deposit brings more": (spoil(DEPOSIT, amount=lambda amount: amount + 1), "not conserved"),
    "a credit brings more": (spoil(CREDIT, amount=lambda amount: amount + 1), "debited and never ended"),
    "an id is not the event's": (misname, "is called"),
    "a key is not the wallet's": (rekey, "has the key"),
    "a reused id is refused for another reason": (
        spoil(REUSED, code=lambda _: "wallet_frozen"),
        "is wrong about whether its id was used before",
    ),
}


def seeds() -> Iterator[int]:
    return iter(range(3))


def test_a_log_as_it_should_be_is_clean() -> None:
    for seed in seeds():
        world, events = log_of(seed)
        found = audit(world, events)
        assert found.violations == [] and found.is_clean
        assert (
            found.transfers > 0 and found.refunds > 0 and found.rejections > 0 and found.duplicate_events > 0
        )


def test_events_alone_can_be_audited() -> None:
    world, events = log_of(1)
    assert audit(world, events, with_commands=False).violations == []


@pytest.mark.parametrize("name", SPOILED)
def test_what_is_wrong_is_found(name: str) -> None:
    do, words = SPOILED[name]
    for seed in seeds():
        world, events = log_of(seed)
        do(events)
        found = audit(world, events)
        assert any(words in sentence for sentence in found.violations), found.violations


def test_nothing_is_wrong_in_the_middle_of_a_log_as_it_should_be() -> None:
    for seed in seeds():
        auditor = audit_meanwhile(*log_of(seed), Random(seed))
        assert auditor.violations.sentences == [] and auditor.report().is_clean


@pytest.mark.parametrize(
    "name",
    [
        "a deposit is lost",
        "a rejection is lost",
        "a deposit brings more",
        "a reused id is refused for another reason",
    ],
)
def test_what_is_wrong_for_good_is_found_before_the_log_ends(name: str) -> None:
    do, words = SPOILED[name]
    for seed in seeds():
        world, events = log_of(seed)
        do(events)
        auditor = audit_meanwhile(world, events, Random(seed))
        assert any(words in sentence for sentence in auditor.violations.sentences)


def test_an_event_that_answers_nothing_is_found_as_soon_as_both_logs_are_past_it() -> None:
    for seed in seeds():
        world, events = log_of(seed)
        # The command that this event answers is removed.
        _, record = events[index_of(events, DEPOSIT)]
        answered = msgspec.json.decode(record.value)["data"]["offset"]
        partition = events[index_of(events, DEPOSIT)][0]
        world.logs[partition] = [each for each in world.logs[partition] if each.offset != answered]
        auditor = audit_meanwhile(world, events, Random(seed))
        assert f"Event {partition}-{answered} answers nothing" in " ".join(auditor.violations.sentences)


def test_money_that_leaves_below_the_limit_is_found() -> None:
    world = World(Random(1))
    wallet_id, other_id = UUID(int=1), UUID(int=2)
    route = INSTALLATION.partitioner.of(wallet_id).partition
    commands: list[ClientCommand] = [
        OpenWallet(id=UUID(int=11), wallet_id=wallet_id, owner_id=other_id, currency="EUR"),
        SetLimits(id=UUID(int=12), wallet_id=wallet_id, overdraft_limit=50),
        Withdraw(id=UUID(int=13), wallet_id=wallet_id, amount=40),
        SetLimits(id=UUID(int=14), wallet_id=wallet_id, overdraft_limit=10),
        Deposit(id=UUID(int=15), wallet_id=wallet_id, amount=5),
    ]
    world.run((command, route) for command in commands)
    events = [
        (route, record)
        for topic, partition, record in world.outputs[route]
        if (topic, partition) == ("events", route)
    ]
    assert audit(world, events).violations == []
    events[1] = route, changed(events[1][1], overdraft_limit=30)
    (sentence,) = audit(world, events).violations
    assert f"wallet {wallet_id} has -40, below its limit of -30" in sentence


def test_many_violations_are_counted_and_the_first_are_kept() -> None:
    world, events = log_of(1)
    found = audit(world, events[: len(events) // 2])
    assert found.violation_count > len(found.violations) == MAX_VIOLATIONS


def test_a_command_that_was_forwarded_to_nowhere_is_found() -> None:
    for seed in seeds():
        world, events = log_of(seed)
        route, forwarded = next(
            (log, record)
            for log in world.logs
            for record in log
            if b'"type":"forwarded"' in record.value  # type: ignore[operator]
        )
        route.remove(forwarded)
        assert any("got lost" in sentence for sentence in audit(world, events).violations)
