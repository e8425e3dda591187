"""Books: what clients were answered, against what the event log says.

books = Books()
books.take_wallet(…)          # while it runs: each balance that was answered, as it comes
books.close(orders, told)     # at the end: everything against the log
"""

from bisect import bisect_right
from collections import defaultdict
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from mercuria.domain.events import BalanceUpdated, CommandRejected, Event, WalletCreated
from tests.harness.audit.violations import Violations
from tests.harness.chaos.asking import Answer
from tests.harness.chaos.orders import Order


class State(NamedTuple):
    """What a wallet is at one of its versions."""

    balance: int
    status: str


class Told:
    """What the event log says: each wallet's states by version, and what became of each order."""

    def __init__(self) -> None:
        self.states: defaultdict[UUID, dict[int, State]] = defaultdict(dict)
        self._movements: defaultdict[str, dict[tuple[int, int], BalanceUpdated]] = defaultdict(dict)
        self._openings: defaultdict[str, dict[tuple[int, int], WalletCreated]] = defaultdict(dict)
        self._refusals: defaultdict[str, dict[tuple[int, int], CommandRejected]] = defaultdict(dict)

    def take(self, partition: int, event: Event) -> None:
        """Take an event of a partition; one that comes again, as duplicates do, counts once."""
        at = partition, event.offset
        if isinstance(event, CommandRejected):
            self._refusals[_order_of(event)][at] = event
            return
        self.states[event.wallet_id][event.version] = State(event.balance, event.status)
        if isinstance(event, BalanceUpdated):
            self._movements[event.reference or ""][at] = event
        elif isinstance(event, WalletCreated):
            self._openings[event.metadata.get("order", "")][at] = event

    def effects(self, order: Order) -> list[BalanceUpdated | WalletCreated]:
        """Return how an order began to have an effect: once, or not at all."""
        if order.kind == "open":
            return list(self._openings[order.key].values())
        return [each for each in self.movements(order) if _is_beginning(each)]

    def movements(self, order: Order) -> list[BalanceUpdated]:
        """Return what an order has done to wallets."""
        return list(self._movements[order.key].values())

    def ending(self, order: Order) -> str | None:
        """Return how the transaction that was ordered has ended; None where no wallet has heard of it."""
        statuses = {each.transaction_status for each in self.movements(order)}
        if not statuses:
            return "failed" if self.refusals(order) else None
        return next(iter(statuses - {"pending"}), "pending")

    def refusals(self, order: Order) -> list[CommandRejected]:
        """Return how an order, or a leg of its transfer, was refused."""
        return list(self._refusals[order.key].values())


class Seen(NamedTuple):
    """A balance that was answered."""

    wallet_id: UUID
    version: int
    state: State
    by: str


class Books:
    """What was answered; `violations` has what is wrong with it."""

    def __init__(self, violations: Violations | None = None) -> None:
        self.violations = violations or Violations()
        self.oldest_shown_s = 0.0
        """How old the oldest balance was when its reading began, as far as clients could know."""
        self._seen: set[Seen] = set()
        self._strong: defaultdict[UUID, list[tuple[float, int]]] = defaultdict(list)
        # For each wallet, when clients first heard of which version; both grow.
        self._heard_s: defaultdict[UUID, list[float]] = defaultdict(list)
        self._versions: defaultdict[UUID, list[int]] = defaultdict(list)

    def take_wallet(self, wallet: dict[str, Any], by: str, at_s: float) -> None:
        """Take a wallet that was answered."""
        id_, version = UUID(wallet["id"]), wallet["version"]
        self._seen.add(Seen(id_, version, State(wallet["balance"], wallet["status"]), by))
        versions = self._versions[id_]
        if not versions or version > versions[-1]:
            versions.append(version)
            self._heard_s[id_].append(at_s)

    def take_reading(self, wallet: dict[str, Any], began_s: float, at_s: float, *, is_strong: bool) -> float:
        """Take a wallet that was read, and return how old it was when the reading began.

        A strong reading is never older than what anybody was answered before it began.
        """
        id_, version = UUID(wallet["id"]), wallet["version"]
        newer = bisect_right(self._versions[id_], version)
        age_s = began_s - self._heard_s[id_][newer] if newer < len(self._versions[id_]) else 0.0
        if age_s > 0 and is_strong:
            self.violations.add(
                f"Wallet {id_} was read as of version {version}, strongly, {age_s:.3f} s after version"
                f" {self._versions[id_][newer]} had been answered."
            )
        if is_strong:
            self._strong[id_].append((began_s, version))
        self.take_wallet(wallet, "a strong reading" if is_strong else "a reading", at_s)
        return max(0.0, age_s)

    def close(self, orders: list[Order], told: Told) -> None:
        """Compare everything with the log."""
        for seen in self._seen:
            if told.states[seen.wallet_id].get(seen.version) != seen.state:
                self.violations.add(
                    f"Wallet {seen.wallet_id} was answered as {tuple(seen.state)} at version {seen.version} by"
                    f" {seen.by}, and was {told.states[seen.wallet_id].get(seen.version)}."
                )
        for order in orders:
            for fault in faults_of(order, told):
                names = ", ".join(answer.name for answer in order.answers)
                self.violations.add(f"Order {order.number} ({order.kind}; {names}): {fault}")
            self._check_strong_readings(order, told)

    def _check_strong_readings(self, order: Order, told: Told) -> None:
        """Check that what Kafka had when a wallet was read strongly is part of what was read."""
        known = order.final or order.accepted
        if known is None:
            return
        for effect in told.effects(order):
            for began_s, version in self._strong[effect.wallet_id]:
                if began_s > known.ended_s and version < effect.version:
                    self.violations.add(
                        f"Wallet {effect.wallet_id} was read as of version {version}, strongly, after order"
                        f" {order.number} was answered with {known.name}, which made it {effect.version}."
                    )


def faults_of(order: Order, told: Told) -> list[str]:
    """Return what is wrong with an order's answers."""
    effects, refusals, final = told.effects(order), told.refusals(order), order.final
    faults = _disagreements(order)
    if len(effects) > 1:
        faults.append(f"it has {len(effects)} effects.")
    if order.is_unsent and (effects or refusals):
        faults.append("it was sent to a wallet, although each answer denies that.")
    if order.accepted is not None and not effects and not refusals:
        faults.append("it was accepted, and nobody has decided about it.")
    if final is not None and final.status == 201:
        if not effects:
            faults.append("it is said to be done, and is not in the log.")
        else:
            faults += _differences(order, final, told)
    if final is not None and final.status != 201 and not refusals:
        faults.append("it is said to be refused, and the log does not say so.")
    if final is not None and final.status != 201 and _moved(told.movements(order)):
        faults.append("it is said to be refused, and has moved money.")
    return faults


def _disagreements(order: Order) -> list[str]:
    """Return how the answers to the same key differ."""
    finals = [each for each in order.answers if each.is_final]
    faults = []
    if any((each.status, each.content) != (finals[0].status, finals[0].content) for each in finals):
        faults.append(f"its answers differ: {[each.content for each in finals]}.")
    if sum(not each.is_replayed for each in finals) > 1:
        faults.append("several answers claim to be the first one.")
    return faults


def _differences(order: Order, answer: Answer, told: Told) -> list[str]:
    """Return in what an answer with 201 differs from the log."""
    body = answer.body
    if order.kind == "open":
        created = told.effects(order)[0]
        return _unequal(
            body, id=str(created.wallet_id), balance=0, version=1, currency=order.body["currency"]
        )
    movements = told.movements(order)
    last = movements[-1] if len(movements) == 1 else next(each for each in movements if not _is_open(each))
    faults = _unequal(
        body,
        id=str(last.transaction_id),
        status="completed",
        amount=order.body["amount"],
        currency=last.currency,
        reference=order.key,
        from_wallet_id=str(last.from_wallet.wallet_id) if last.from_wallet else None,
        to_wallet_id=str(last.to_wallet.wallet_id) if last.to_wallet else None,
    )
    if last.transaction_status != "completed" or last.amount != order.body["amount"]:
        faults.append(f"the log has {last}.")
    if order.kind in ("deposit", "withdraw"):
        faults += _unequal(body["wallet"], id=str(last.wallet_id), balance=last.balance, version=last.version)
    return faults


def _unequal(body: dict[str, Any], **expected: Any) -> list[str]:
    return [
        f"`{name}` is {body[name]!r}, and should be {value!r}."
        for name, value in expected.items()
        if body[name] != value
    ]


def _moved(movements: list[BalanceUpdated]) -> bool:
    """Return whether movements have changed what wallets hold: a debit that came back has not."""
    statuses = sorted(each.transaction_status for each in movements)
    return statuses not in ([], ["failed", "pending"])


def _is_open(event: BalanceUpdated) -> bool:
    return event.transaction_status == "pending"


def _is_beginning(event: BalanceUpdated) -> bool:
    return event.kind != "transfer" or _is_open(event)


class _Asked(msgspec.Struct):
    """What tells in a refused command which order it was."""

    reference: str | None = None
    metadata: dict[str, str] = {}


_decode_asked = msgspec.json.Decoder(_Asked).decode


def _order_of(event: CommandRejected) -> str:
    if not event.command or bytes(event.command) == b"null":
        return ""
    asked = _decode_asked(event.command)
    return asked.reference or asked.metadata.get("order", "")
