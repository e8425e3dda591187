"""What the ledger adds up to: figures of each day and currency, and of each user and currency.

Each entry adds what it alone says, so entries may be cut anywhere, also between the two of a transaction, and the
figures of pieces, or of partitions, add up to those of the whole.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from uuid import UUID

from mercuria.domain.events import Kind
from mercuria.domain.ledger import Direction, Entry

DAY_MS = 86_400_000


@dataclass(slots=True)
class Total:
    """How many there were, and their amounts in minor units together."""

    count: int = 0
    volume: int = 0


@dataclass(slots=True)
class Figures:
    """The figures of some entries. A day is UTC's, as its number since 1970-01-01."""

    daily: defaultdict[tuple[int, str, Kind], Total] = field(default_factory=lambda: defaultdict(Total))
    """By day, currency and kind: transactions, each counted at its credit."""
    active: set[tuple[int, str, str]] = field(default_factory=set)
    """Day, currency and id of each wallet that took part in a transaction."""
    users: defaultdict[tuple[UUID, str, Kind, Direction], Total] = field(
        default_factory=lambda: defaultdict(Total)
    )
    """By owner, currency, kind and direction: what came into the owner's wallets (credit), and what left (debit)."""
    last_activity_ms: dict[UUID, int] = field(default_factory=dict)

    def take(self, entries: Iterable[Entry]) -> None:
        """Add entries; each may be added once."""
        for entry in entries:
            day = entry.occurred_at_ms // DAY_MS
            if entry.direction == "credit":
                total = self.daily[day, entry.currency, entry.kind]
                total.count += 1
                total.volume += entry.amount
            owner = entry.owner_id
            if owner is not None:
                self.active.add((day, entry.currency, entry.account))
                total = self.users[owner, entry.currency, entry.kind, entry.direction]
                total.count += 1
                total.volume += entry.amount
                self.last_activity_ms[owner] = max(
                    self.last_activity_ms.get(owner, entry.occurred_at_ms), entry.occurred_at_ms
                )
