"""The auditor takes a log for right that was decided by a version with fewer rules, and one that is decided now."""

import msgspec
import pytest

from mercuria.domain.commands import Transfer
from mercuria.kafka.producer import Record
from tests.harness.audit.auditor import Audit, Auditor
from tests.protocol.test_batches import LIFETIME_MS, PARTITIONS, LogRecord, Partition
from tests.protocol.test_order_of_names import OPENING, ROUTE, WALLET_ID, opened, record, transfer


def audit(commands: list[LogRecord], events: list[Record], *, events_first: bool) -> Audit:
    """Audit one partition's logs, of which one is read before the other."""
    auditor = Auditor(PARTITIONS, None, LIFETIME_MS * 100)

    def take_commands() -> None:
        for each in commands:
            auditor.take_command(
                each.partition, each.offset, each.value, key=each.key, time_ms=each.timestamp
            )

    def take_events() -> None:
        for offset, each in enumerate(events):
            auditor.take_event(ROUTE.partition, offset, each.value or b"", key=each.key)

    for take in (take_events, take_commands) if events_first else (take_commands, take_events):
        take()
    auditor.check_progress()
    return auditor.report()


def violations(audit: Audit) -> list[str]:
    # The other half of a transfer is in another partition, which is not read here.
    return [each for each in audit.violations if "ransfer" not in each]


def decided(*commands: LogRecord) -> list[Record]:
    """Return the events of commands as they are decided now, with the one that opens the wallet."""
    opening = Partition(ROUTE.partition).decide([record(0, OPENING)]).outputs.events
    return opening + opened().decide(commands).outputs.events


@pytest.mark.parametrize("events_first", [True, False])
@pytest.mark.parametrize("is_old", [True, False])
def test_another_order_of_names_was_another_command_once(is_old: bool, events_first: bool) -> None:
    first, again = record(1, transfer("b", "a")), record(2, transfer("a", "b"))
    # As another command it was refused, like any with this id and other metadata.
    other = record(2, transfer("a", "c")) if is_old else again
    found = audit([record(0, OPENING), first, again], decided(first, other), events_first=events_first)
    assert violations(found) == []


@pytest.mark.parametrize("events_first", [True, False])
@pytest.mark.parametrize("is_old", [True, False])
def test_a_command_with_a_name_twice_was_decided_once(is_old: bool, events_first: bool) -> None:
    good = msgspec.json.encode(Transfer(id=WALLET_ID, wallet_id=WALLET_ID, to_wallet_id=OPENING.id, amount=5))
    twice = record(1, OPENING)._replace(value=good.replace(b'"amount"', b'"amount":1,"amount"'))
    # It came a second time, and had no event of its own when it was still decided.
    again = twice._replace(offset=2)
    events = decided(twice._replace(value=good)) if is_old else decided(twice, again)
    found = audit([record(0, OPENING), twice, again], events, events_first=events_first)
    assert violations(found) == []


def test_a_refusal_that_is_missing_is_still_found() -> None:
    unreadable = record(1, OPENING)._replace(value=b"{}")
    found = audit([record(0, OPENING), unreadable], decided(), events_first=False)
    assert violations(found) == [f"Command {ROUTE.partition}-1 was never answered."]
