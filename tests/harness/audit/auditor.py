"""The auditor: reads the command and the event log from their beginning, and finds what is wrong with them.

It is fed record by record, in any order of the topics and partitions, and in the order of the offsets within one.
All its knowledge comes from the log. Which events there have to be is in `expected_events`, what they do to wallets and
sums in `money`.

    auditor = Auditor(partitions)
    auditor.take_command(partition, offset, value, key=key, time_ms=time_ms)   # of wallet.commands; may be left out
    auditor.take_event(partition, offset, value, key=key)                      # of wallet.events
    auditor.report()
"""

from collections import defaultdict
from collections.abc import Set
from uuid import UUID

import msgspec
from msgspec import Struct

from mercuria.domain.events import CommandRejected, Event
from mercuria.kafka.cloudevents import read_event
from mercuria.kafka.sealing import Seal
from tests.harness.audit.expected_events import (
    DEFAULT_RECEIPTS_LIFETIME_MS,
    CommandRecord,
    ExpectedEvents,
)
from tests.harness.audit.money import Money, Totals, WalletState
from tests.harness.audit.violations import MAX_VIOLATIONS, Violations


class Audit(Struct):
    """The findings; `violations` are the first ones."""

    commands: int
    events: int
    duplicate_events: int
    rejections: int
    transfers: int
    refunds: int
    wallets: int
    totals: dict[str, Totals]
    violation_count: int
    violations: list[str]

    @property
    def is_clean(self) -> bool:
        """Whether nothing is wrong."""
        return self.violation_count == 0


class Auditor:
    """Checks the logs of one installation.

    Args:
        partitions: how many the topics have.
        seal: the installation's, to recognise forged legs; without it, all legs are taken for genuine.
        receipts_lifetime_ms: how long a command id is remembered.
        violations: where violations are added.
        skipped: partitions and offsets of commands that an operator has had skipped (`kafka.skips`).
    """

    def __init__(
        self,
        partitions: int,
        seal: Seal | None = None,
        receipts_lifetime_ms: int = DEFAULT_RECEIPTS_LIFETIME_MS,
        violations: Violations | None = None,
        skipped: Set[tuple[int, int]] = frozenset(),
    ) -> None:
        self.violations = violations or Violations()
        self.expected = ExpectedEvents(partitions, seal, receipts_lifetime_ms, skipped)
        self.money = Money(self.violations)
        self.events = 0
        self.rejections = 0
        self._contents: defaultdict[int, dict[int, int]] = defaultdict(dict)

    @property
    def wallets(self) -> dict[UUID, WalletState]:
        """The wallets after all events so far."""
        return self.money.wallets

    def take_command(
        self, partition: int, offset: int, value: bytes | None, *, key: bytes | None, time_ms: int
    ) -> None:
        """Take the next record of a partition of the command topic."""
        self.expected.take_command(CommandRecord(partition, offset, time_ms, key, value))

    def take_event(self, partition: int, offset: int, value: bytes, *, key: bytes | None) -> None:
        """Take the next record of a partition of the event topic."""
        self.events += 1
        event = read_event(value)
        self._check_envelope(f"{partition}-{event.offset}", offset, event, value, key)
        seen, content = self._contents[partition], hash((key, value))
        first = seen.get(event.offset)
        if first is None:
            seen[event.offset] = content
            self._take_new(partition, event)
        elif first != content:
            self.violations.add(
                f"Event {partition}-{event.offset} was repeated at offset {offset} with another content."
            )

    def check_progress(self) -> None:
        """Add what is already certain to be wrong: up to where both logs have been read, and the sums."""
        self.expected.settle(self.violations)
        self.money.check_sums(self.violations)

    def report(self) -> Audit:
        """Return the findings up to here, as if the logs ended here."""
        open_ends = Violations()
        self.expected.close(open_ends)
        self.money.close(open_ends)
        distinct = sum(len(seen) for seen in self._contents.values())
        return Audit(
            commands=self.expected.commands,
            events=distinct,
            duplicate_events=self.events - distinct,
            rejections=self.rejections,
            transfers=self.money.transfers,
            refunds=self.money.refunds,
            wallets=len(self.wallets),
            totals=self.money.totals,
            violation_count=self.violations.count + open_ends.count,
            violations=(self.violations.sentences + open_ends.sentences)[:MAX_VIOLATIONS],
        )

    def _take_new(self, partition: int, event: Event) -> None:
        if isinstance(event, CommandRejected):
            self.rejections += 1
            self.expected.take_event(partition, event.offset, event.code)
        else:
            self.money.take(f"{partition}-{event.offset}", event)
            self.expected.take_event(partition, event.offset, None)

    def _check_envelope(self, id_: str, offset: int, event: Event, value: bytes, key: bytes | None) -> None:
        event_id = _decode_envelope(value).id
        if event_id != id_:
            self.violations.add(f"The event at offset {offset} is called {event_id}, and should be {id_}.")
        wanted = str(event.wallet_id).encode() if event.wallet_id else None
        if key != wanted:
            self.violations.add(f"Event {id_} has the key {key!r}, and should have {wanted!r}.")


class _Envelope(Struct):
    id: str


_decode_envelope = msgspec.json.Decoder(_Envelope).decode
