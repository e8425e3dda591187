"""What the event log holds: each wallet's states by version, and the effects of each request."""

from collections import defaultdict
from typing import NamedTuple
from uuid import UUID

import msgspec

from mercuria.domain.events import BalanceUpdated, CommandRejected, Event, WalletCreated
from mercuria.embedded.stack import Stack
from mercuria.kafka.client import read_log
from mercuria.kafka.cloudevents import read_event
from mercuria.topics import WALLET_EVENTS
from tests.harness.chaos.http.requests import Request


class State(NamedTuple):
    """A wallet at one of its versions."""

    balance: int
    status: str


class EventLog:
    """The events of a stack, by wallet and by request. An event that was published twice counts once."""

    def __init__(self) -> None:
        self.states: defaultdict[UUID, dict[int, State]] = defaultdict(dict)
        self._movements: defaultdict[str, dict[tuple[int, int], BalanceUpdated]] = defaultdict(dict)
        self._openings: defaultdict[str, dict[tuple[int, int], WalletCreated]] = defaultdict(dict)
        self._rejections: defaultdict[str, dict[tuple[int, int], CommandRejected]] = defaultdict(dict)

    def add(self, partition: int, event: Event) -> None:
        """Add an event of a partition."""
        at = partition, event.offset
        if isinstance(event, CommandRejected):
            self._rejections[_key_of(event)][at] = event
            return
        self.states[event.wallet_id][event.version] = State(event.balance, event.status)
        if isinstance(event, BalanceUpdated):
            self._movements[event.reference or ""][at] = event
        elif isinstance(event, WalletCreated):
            self._openings[event.metadata.get("order", "")][at] = event

    def latest_states(self) -> dict[UUID, tuple[int, State]]:
        """Return each wallet's last version, and its state then."""
        return {id_: (max(states), states[max(states)]) for id_, states in self.states.items()}

    def effects(self, request: Request) -> list[BalanceUpdated | WalletCreated]:
        """Return the first events of a request's effects: one, or none where it had no effect."""
        if request.kind == "open":
            return list(self._openings[request.key].values())
        return [each for each in self.movements(request) if _is_first_event(each)]

    def movements(self, request: Request) -> list[BalanceUpdated]:
        """Return how a request changed the balances of wallets."""
        return list(self._movements[request.key].values())

    def transaction_status(self, request: Request) -> str | None:
        """Return the last status of a request's transaction; None where no wallet has decided about it."""
        statuses = {each.transaction_status for each in self.movements(request)}
        if not statuses:
            return "failed" if self.rejections(request) else None
        return next(iter(statuses - {"pending"}), "pending")

    def rejections(self, request: Request) -> list[CommandRejected]:
        """Return how a request, or a leg of its transfer, was rejected."""
        return list(self._rejections[request.key].values())


async def read_event_log(stack: Stack) -> EventLog:
    """Read the event log of a stack from its beginning."""
    log = EventLog()
    async for record in read_log(stack.env["MERCURIA_KAFKA"], WALLET_EVENTS):
        log.add(record.partition, read_event(record.value))
    return log


def _is_first_event(event: BalanceUpdated) -> bool:
    return event.kind != "transfer" or event.transaction_status == "pending"


class _RejectedCommand(msgspec.Struct):
    """The fields of a rejected command that hold its request's key."""

    reference: str | None = None
    metadata: dict[str, str] = {}


_decode_rejected = msgspec.json.Decoder(_RejectedCommand).decode


def _key_of(event: CommandRejected) -> str:
    if not event.command or bytes(event.command) == b"null":
        return ""
    command = _decode_rejected(event.command)
    return command.reference or command.metadata.get("order", "")
