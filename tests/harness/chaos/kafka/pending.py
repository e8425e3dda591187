"""Which commands of a chaos run are not answered yet, and how long the others took."""

import time
from uuid import UUID

from mercuria.domain.commands import ClientCommand
from mercuria.domain.events import BalanceUpdated, Event


class PendingCommands:
    """The commands that were sent and have no event yet, and the transfers that have not ended."""

    def __init__(self) -> None:
        self.sent = 0
        self.answered = 0
        self.longest_pause_s = 0.0
        self._unanswered: dict[UUID, float] = {}
        self._latencies_s: list[float] = []
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
        """Add a command that is sent now, perhaps again."""
        now_s = time.monotonic()
        if not self._unanswered:
            self._last_answer_s = now_s
        self._unanswered.setdefault(command.id, now_s)
        self.sent += 1

    def take_latencies_s(self) -> list[float]:
        """Return and forget the latencies of the commands that were answered since the last call."""
        latencies_s, self._latencies_s = self._latencies_s, []
        return latencies_s

    def take(self, partition: int, event: Event) -> None:
        """Take an event of a partition."""
        now_s = time.monotonic()
        if self._unanswered:
            self.longest_pause_s = max(self.longest_pause_s, now_s - self._last_answer_s)
        self._last_answer_s = now_s
        id_ = event.transaction_id if isinstance(event, BalanceUpdated) else event.command_id
        if id_ is not None and id_ in self._unanswered:
            self._latencies_s.append(now_s - self._unanswered.pop(id_))
            self.answered += 1
        # What comes again was there before: events of a partition come in their order.
        if event.offset > self._last.get(partition, -1):
            self._last[partition] = event.offset
            self._follow(event)

    def _follow(self, event: Event) -> None:
        if isinstance(event, BalanceUpdated) and event.kind == "transfer":
            # A debit opens the transfer, the other event ends it; which of them is read first is chance.
            self._transfers ^= {event.transaction_id}
