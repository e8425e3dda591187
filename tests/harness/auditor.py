"""The auditor: reads the command and the event log from their beginning, and says what is wrong with them.

It is fed record by record, in any order of the topics and partitions, and in the order of the offsets within one.
It shares no state with the agents: what it knows, it has from the log alone.

    auditor = Auditor(partitions)
    auditor.take_command(partition, offset, value, key=key, time_ms=time_ms)   # of wallet.commands; may be left out
    auditor.take_event(partition, offset, value, key=key)                      # of wallet.events
    auditor.report()
"""

from collections import defaultdict
from collections.abc import Callable, Sequence, Set
from struct import Struct as Packing
from typing import NamedTuple, cast
from uuid import UUID

import msgspec
from msgspec import Struct

from mercuria.domain.commands import ClientCommand, Credit, Forwarded, Leg, Refund, in_order
from mercuria.domain.events import (
    Accepted,
    BalanceUpdated,
    CommandRejected,
    Event,
    LimitsChanged,
    Status,
    StatusChanged,
    WalletCreated,
)
from mercuria.domain.parsing import Unreadable, read_command, read_leniently
from mercuria.domain.rejections import Code
from mercuria.kafka.cloudevents import read_event
from mercuria.kafka.partitioning import Homes
from mercuria.kafka.sealing import Seal

MAX_VIOLATIONS = 20
"""How many violations are told in words; all are counted."""

DAY_MS = 24 * 60 * 60 * 1000
DEFAULT_RECEIPTS_LIFETIME_MS = 7 * DAY_MS

_encode_body = msgspec.msgpack.Encoder(uuid_format="bytes").encode
_RECEIPT = Packing(">qqqq")
_LEGS = (Credit, Refund, Forwarded)

UNANSWERED = "Command {} was never answered."
UNASKED = "Event {} answers nothing: no command there calls for one."
REUSED = "Command {}: whether its id was used before was told wrong."
LOST = "Command {}, in another partition than its wallet's, got lost."


class _Envelope(Struct):
    id: str


_decode_envelope = msgspec.json.Decoder(_Envelope).decode


class Violations:
    """What is wrong: the first sentences, and how many there are in all.

    Args:
        tell: hears of each sentence that is kept, at once.
    """

    def __init__(self, tell: Callable[[str], None] = lambda _: None) -> None:
        self.count = 0
        self.sentences: list[str] = []
        self._tell = tell

    def add(self, sentence: str) -> None:
        """Note one violation."""
        self.count += 1
        if len(self.sentences) < MAX_VIOLATIONS:
            self.sentences.append(sentence)
            self._tell(sentence)

    def take_over(self, count: int, sentences: Sequence[str]) -> None:
        """Note what somebody else has found: `count` violations, of which the first ones are told in words."""
        for sentence in sentences:
            self.add(sentence)
        self.count += count - len(sentences)


class WalletState(Struct):
    """What a wallet's events say it is. Amounts are minor units, `sent` those of transfers that did not come back."""

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


class Audit(Struct):
    """The findings. `violations` are the first ones, as sentences."""

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
        seal: the installation's, to tell forged legs; without it, all legs are taken for genuine.
        receipts_lifetime_ms: how long a command id is remembered.
        violations: where what is wrong is noted.
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
        self.answers = Answers(partitions, seal, receipts_lifetime_ms, skipped)
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
        self.answers.ask(_Asked(partition, offset, time_ms, key, value))

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

    def look(self) -> None:
        """Note what is wrong for good, while the logs go on: where both have been read, and the sums at any moment."""
        self.answers.settle(self.violations)
        self.money.check_sums(self.violations)

    def report(self) -> Audit:
        """Say what was found up to here, as if the logs ended here."""
        open_ends = Violations()
        self.answers.close(open_ends)
        self.money.close(open_ends)
        distinct = sum(len(seen) for seen in self._contents.values())
        return Audit(
            commands=self.answers.commands,
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
            self.answers.answer(partition, event.offset, event.code)
        else:
            self.money.take(f"{partition}-{event.offset}", event)
            self.answers.answer(partition, event.offset, None)

    def _check_envelope(self, id_: str, offset: int, event: Event, value: bytes, key: bytes | None) -> None:
        told = _decode_envelope(value).id
        if told != id_:
            self.violations.add(f"The event at offset {offset} is called {told}, and should be {id_}.")
        wanted = str(event.wallet_id).encode() if event.wallet_id else None
        if key != wanted:
            self.violations.add(f"Event {id_} has the key {key!r}, and should have {wanted!r}.")


class _Asked(NamedTuple):
    """A record of the command topic, as far as it matters here."""

    partition: int
    offset: int
    time_ms: int
    key: bytes | None
    value: bytes | None


class Answers:
    """Which record of the command topic calls for which event, and whether that event came, and no other.

    A client's command is answered under its own offset, its retries under the first one's; a leg that was sent again
    is not answered at all.
    """

    def __init__(
        self,
        partitions: int,
        seal: Seal | None,
        receipts_lifetime_ms: int,
        skipped: Set[tuple[int, int]] = frozenset(),
    ) -> None:
        self.commands = 0
        self._skipped = skipped
        self._was_fed = False
        self._homes = Homes(partitions)
        self._seal = seal
        self._lifetime_ms = receipts_lifetime_ms
        # What only one side has so far: asked and not answered, or answered and not (yet) asked.
        self._unanswered: set[tuple[int, int]] = set()
        self._unasked: set[tuple[int, int]] = set()
        self._reused: set[tuple[int, int]] = set()
        self._unforwarded: set[tuple[int, int]] = set()
        # What may be answered or not, depending on the version that decided it, and is not answered so far.
        self._permitted: set[tuple[int, int]] = set()
        # Up to which offset each side has come in each partition.
        self._asked_to: dict[int, int] = {}
        self._answered_to: dict[int, int] = {}
        self._origins: dict[tuple[int, int], int] = {}
        self._receipts: defaultdict[int, dict[int, bytes]] = defaultdict(dict)

    def ask(self, asked: _Asked) -> None:
        """Take a record of the command topic."""
        self._was_fed = True
        self._asked_to[asked.partition] = asked.offset
        if (asked.partition, asked.offset) in self._skipped:
            # Without a receipt: its id is as free as before.
            self._expect(asked)
            return
        command = read_command(asked.value)
        kind = type(command)
        if kind is Unreadable:
            self._ask_unreadable(asked, cast(Unreadable, command))
        elif kind in _LEGS:
            self._ask_leg(asked, cast(Leg, command))
        else:
            self._ask_client(asked, cast(ClientCommand, command))

    def answer(self, partition: int, offset: int, code: Code | None) -> None:
        """Take an event that was not there before; `code` is a rejection's."""
        place = (partition, offset)
        self._answered_to[partition] = max(offset, self._answered_to.get(partition, -1))
        if place in self._permitted:
            self._permitted.remove(place)
            return
        if place in self._unanswered:
            self._unanswered.remove(place)
        else:
            self._unasked.add(place)
        if code is Code.COMMAND_ID_REUSED:
            # Both sides put it in; who comes second takes it out.
            self._reused ^= {place}

    def settle(self, violations: Violations) -> None:
        """Say once what is missing up to where both logs have been read: a partition is answered in its order."""
        ends = {
            partition: min(offset, self._answered_to.get(partition, -1))
            for partition, offset in self._asked_to.items()
        }
        for places, sentence in self._open_places():
            settled = {place for place in places if place[1] <= ends.get(place[0], -1)}
            _tell_of(settled, sentence, violations)
            places -= settled

    def close(self, violations: Violations) -> None:
        """Say what is missing at the end of the logs."""
        if not self._was_fed:
            return
        for places, sentence in self._open_places():
            _tell_of(places, sentence, violations)
        _tell_of(self._unforwarded, LOST, violations)

    def _open_places(self) -> tuple[tuple[set[tuple[int, int]], str], ...]:
        return (self._unanswered, UNANSWERED), (self._unasked, UNASKED), (self._reused, REUSED)

    def _ask_unreadable(self, asked: _Asked, fault: Unreadable) -> None:
        if fault.code is Code.MALFORMED_COMMAND and read_leniently(asked.value) is not None:
            # A name stands twice. Such commands were decided once, and forwarded, and recognised when they came again.
            self._permit(asked)
        else:
            self._expect(asked)

    def _ask_client(self, asked: _Asked, command: ClientCommand) -> None:
        if asked.key != self._homes.of(command.wallet_id).key:
            self._expect(asked)
        elif self._homes.of(command.wallet_id).partition == asked.partition:
            self._ask_once(asked, command)
        else:
            self._unforwarded ^= {(asked.partition, asked.offset)}

    def _ask_leg(self, asked: _Asked, leg: Leg) -> None:
        if not self._is_authentic(asked, leg):
            self._expect(asked)
            return
        source, offset = leg.origin.partition, leg.origin.offset
        if offset <= self._origins.get((asked.partition, source), -1):
            return
        self._origins[asked.partition, source] = offset
        if type(leg) is Forwarded:
            command = read_command(bytes(leg.command))
            if type(command) is Unreadable:
                self._ask_unreadable(asked._replace(value=bytes(leg.command)), command)
                return
            self._unforwarded ^= {(source, offset)}
            self._ask_once(asked, cast(ClientCommand, command))
        else:
            self._expect(asked)

    def _is_authentic(self, asked: _Asked, leg: Leg) -> bool:
        if self._homes.of(leg.wallet_id).partition != asked.partition:
            return False
        return self._seal is None or self._seal.holds(cast(bytes, asked.value))

    def _ask_once(self, asked: _Asked, command: ClientCommand) -> None:
        self.commands += 1
        as_came, fingerprint = hash(_encode_body(command)), hash(_encode_body(in_order(command)))
        receipts = self._receipts[asked.partition]
        packed = receipts.get(command.id.int)
        if packed is not None:
            _, time_ms, first_fingerprint, first_as_came = _RECEIPT.unpack(packed)
            if asked.time_ms - time_ms <= self._lifetime_ms:
                if fingerprint == first_fingerprint and as_came != first_as_came:
                    # The same with its metadata in another order: once, that was refused as another command.
                    self._permit(asked)
                elif fingerprint != first_fingerprint:
                    self._reused ^= {(asked.partition, asked.offset)}
                    self._expect(asked)
                return
        receipts[command.id.int] = _RECEIPT.pack(asked.offset, asked.time_ms, fingerprint, as_came)
        self._expect(asked)

    def _permit(self, asked: _Asked) -> None:
        """Take any answer to a record for right, and none as well."""
        place = (asked.partition, asked.offset)
        self._reused.discard(place)
        if place in self._unasked:
            self._unasked.remove(place)
        else:
            self._permitted.add(place)

    def _expect(self, asked: _Asked) -> None:
        place = (asked.partition, asked.offset)
        if place in self._unasked:
            self._unasked.remove(place)
        else:
            self._unanswered.add(place)


def _tell_of(places: set[tuple[int, int]], sentence: str, violations: Violations) -> None:
    for partition, offset in sorted(places):
        violations.add(sentence.format(f"{partition}-{offset}"))


class _Transfer(NamedTuple):
    """What the events of one transfer have in common. Its id may be another one's when receipts have expired."""

    id: UUID
    sender: UUID
    amount: int
    currency: str


class Money:
    """Versions, balances and transfers, as the events tell them."""

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
        """Say which currency's money is not conserved: it is after every event, in whatever order they come."""
        for currency, total in self.totals.items():
            if not total.is_conserved:
                violations.add(
                    f"{currency} is not conserved: {total.balances} in wallets and {total.in_flight} in flight,"
                    f" from {total.deposits} deposited and {total.withdrawals} withdrawn."
                )

    def close(self, violations: Violations) -> None:
        """Say what is open at the end of the logs, and whether the sums are right."""
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
        """Note where the money goes, and return what the event adds to the balance."""
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
