"""Aggregates of the ledger: figures by day and currency, and by user and currency.

Each entry adds only what it contains itself. Entries may therefore be split anywhere, even between the two of
a transaction, and the figures of parts, or of partitions, add up to those of the whole.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date
from uuid import UUID

from mercuria.domain.kinds import Kind
from mercuria.domain.ledger import Direction, Entry

DAY_MS = 86_400_000
_FIRST_DAY = date(1970, 1, 1).toordinal()


@dataclass(slots=True)
class Total:
    """A number of transactions, and the sum of their amounts in minor units."""

    count: int = 0
    volume: int = 0


@dataclass(slots=True)
class UserTotal(Total):
    """The total of a user, with the time of the last transaction."""

    last_ms: int = 0


@dataclass(slots=True)
class Figures:
    """The figures of some entries. A day is a UTC day, as its number since 1970-01-01."""

    daily: defaultdict[tuple[int, str, Kind], Total] = field(default_factory=lambda: defaultdict(Total))
    """By day, currency and kind: transactions, each counted at its credit."""
    active: set[tuple[int, str, UUID]] = field(default_factory=set)
    """Day, currency and id of each wallet that took part in a transaction."""
    undated: set[tuple[int, str, UUID]] = field(default_factory=set)
    """The same triples, for wallets that took part in a transaction without an effective date."""
    effective: defaultdict[tuple[int, int, str, Kind], Total] = field(
        default_factory=lambda: defaultdict(Total)
    )
    """By effective day, day, currency and kind: transactions that have an effective date."""
    effective_active: set[tuple[int, str, UUID]] = field(default_factory=set)
    """Effective day, currency and id of each wallet in a transaction with an effective date."""
    users: defaultdict[tuple[UUID, str, Kind, Direction], UserTotal] = field(
        default_factory=lambda: defaultdict(UserTotal)
    )
    """By owner, currency, kind and direction: money into (credit) and out of (debit) the owner's wallets."""

    def take(self, entries: Iterable[Entry]) -> None:
        """Add entries; the caller must add each entry only once."""
        for entry in entries:
            day = entry.occurred_at_ms // DAY_MS
            effective_day = day_of(entry.effective_at) if entry.effective_at else None
            if entry.direction == "credit":
                _add(self.daily[day, entry.currency, entry.kind], entry)
                if effective_day is not None:
                    _add(self.effective[effective_day, day, entry.currency, entry.kind], entry)
            if entry.owner_id is not None:
                wallet_id = UUID(entry.account)
                self.active.add((day, entry.currency, wallet_id))
                if effective_day is None:
                    self.undated.add((day, entry.currency, wallet_id))
                else:
                    self.effective_active.add((effective_day, entry.currency, wallet_id))
                total = self.users[entry.owner_id, entry.currency, entry.kind, entry.direction]
                _add(total, entry)
                total.last_ms = max(total.last_ms, entry.occurred_at_ms)


def day_of(effective_at: str) -> int:
    """Return the day of a canonical effective date, as its number since 1970-01-01, which may be negative."""
    return date.fromisoformat(effective_at[:10]).toordinal() - _FIRST_DAY


def _add(total: Total, entry: Entry) -> None:
    total.count += 1
    total.volume += entry.amount
