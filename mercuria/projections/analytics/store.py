"""The store of analytics: counts ledger entries in `daily_totals`, `daily_active_wallets` and `user_totals`.

An entry with an effective date also counts by that date, in `effective_totals` and
`effective_active_wallets`. These two tables have no copies in Redis or RocksDB.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from mercuria.domain.kinds import Kind
from mercuria.domain.ledger import Direction
from mercuria.postgres.copy_text import array, hex_of, timestamp
from mercuria.postgres.database import queries
from mercuria.projections.analytics.rows import Added
from mercuria.projections.checkpoints import Checkpoint
from mercuria.projections.store import ProjectionTables

MAX_KNOWN_ACTIVE = 200_000
"""The number of active wallets that are remembered as written, in all partitions together."""

_SQL = queries("mercuria.projections.analytics", "store.sql")


class DayCounter(NamedTuple):
    """A partition's counter of a day, a currency and a kind. The day is in UTC, as days since 1970-01-01."""

    day: int
    currency: str
    kind: Kind
    movements: int
    volume: int


class ActiveWallet(NamedTuple):
    """A wallet that took part in a transaction on a day. Its id has no hyphens."""

    day: int
    currency: str
    wallet_id: str


class UserCounter(NamedTuple):
    """A partition's counter of a user, a currency, a kind and a direction. The user's id has no hyphens."""

    user_id: str
    currency: str
    kind: Kind
    direction: Direction
    movements: int
    volume: int
    last_ms: int


class Counters(NamedTuple):
    """The counters of a partition at the record `after`, as far as they changed since the record `before`."""

    before: int
    after: int
    days: list[DayCounter]
    active: list[ActiveWallet]
    users: list[UserCounter]


class AnalyticsTables(ProjectionTables[dict[int, Added]]):
    """The tables of analytics.

    A write adds to the counters in the same transaction that moves the checkpoint. So no entry counts twice,
    even if the worker is killed.
    """

    name = "analytics"

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._written: dict[int, Counters] = {}
        # Most wallets are active more than once a day. The sets are valid only while no other worker has written.
        self._active: dict[int, set[ActiveWallet]] = {}
        self._undated: dict[int, set[ActiveWallet]] = {}
        self._active_at: dict[int, Checkpoint] = {}

    def take_written(self) -> dict[int, Counters]:
        """Return the counters that the last `write` has changed, by partition."""
        written, self._written = self._written, {}
        return written

    def _look(self, cursor: Any, checkpoints: dict[int, Checkpoint]) -> None:
        too_many = sum(map(len, self._active.values())) > MAX_KNOWN_ACTIVE
        for partition, checkpoint in checkpoints.items():
            if too_many or self._active_at.get(partition) != checkpoint:
                self._active[partition] = set()
                self._undated[partition] = set()

    def _write(self, cursor: Any, rows: dict[int, Added]) -> None:
        written = {
            number: Counters(added.before.read, added.after.read, [], [], [])
            for number, added in rows.items()
        }
        self._add_days(cursor, rows, written)
        self._add_active(cursor, rows, written)
        self._add_users(cursor, rows, written)
        self._add_effective(cursor, rows)
        self._written = written
        # Only now: if the connection breaks before the commit, no row is written, and the checkpoint stays the old one.
        for number, counters in written.items():
            self._active[number].update(counters.active)
            self._undated[number].update(_wallets(rows[number].figures.undated))
            self._active_at[number] = rows[number].after

    def _add_days(self, cursor: Any, rows: Mapping[int, Added], written: Mapping[int, Counters]) -> None:
        days = [
            (str(day), currency, kind, str(number), str(total.count), str(total.volume))
            for number, added in rows.items()
            for (day, currency, kind), total in added.figures.daily.items()
        ]
        if days:
            names = ("days", "currencies", "kinds", "partitions", "counts", "volumes")
            cursor.execute(_SQL["add_days"], _arrays(names, days))
            for number, day, currency, kind, count, volume in cursor:
                written[number].days.append(DayCounter(day, currency, kind, count, int(volume)))

    def _add_active(self, cursor: Any, rows: Mapping[int, Added], written: Mapping[int, Counters]) -> None:
        new = []
        for number, added in rows.items():
            seen, undated = _wallets(added.figures.active), _wallets(added.figures.undated)
            written[number].active.extend(seen - self._active[number])
            new += [
                (str(each.day), each.currency, each.wallet_id, str(number), "t" if each in undated else "f")
                for each in (seen - self._active[number]) | (undated - self._undated[number])
            ]
        if new:
            names = ("days", "currencies", "ids", "partitions", "undated")
            cursor.execute(_SQL["add_active"], _arrays(names, new))

    def _add_users(self, cursor: Any, rows: Mapping[int, Added], written: Mapping[int, Counters]) -> None:
        users = [
            (
                hex_of(user_id),
                currency,
                kind,
                direction,
                str(number),
                str(total.count),
                str(total.volume),
                f'"{timestamp(total.last_ms)}"',
            )
            for number, added in rows.items()
            for (user_id, currency, kind, direction), total in added.figures.users.items()
        ]
        if users:
            names = ("ids", "currencies", "kinds", "directions", "partitions", "counts", "volumes", "times")
            cursor.execute(_SQL["add_users"], _arrays(names, users))
            for number, user_id, currency, kind, direction, count, volume, last_ms in cursor:
                written[number].users.append(
                    UserCounter(user_id, currency, kind, direction, count, int(volume), last_ms)
                )

    def _add_effective(self, cursor: Any, rows: Mapping[int, Added]) -> None:
        totals = [
            (str(day), str(recorded_on), currency, kind, str(number), str(total.count), str(total.volume))
            for number, added in rows.items()
            for (day, recorded_on, currency, kind), total in added.figures.effective.items()
        ]
        if totals:
            names = ("days", "recorded_on", "currencies", "kinds", "partitions", "counts", "volumes")
            cursor.execute(_SQL["add_effective"], _arrays(names, totals))
        active = [
            (str(day), currency, hex_of(wallet_id), str(number))
            for number, added in rows.items()
            for day, currency, wallet_id in added.figures.effective_active
        ]
        if active:
            arrays = _arrays(("days", "currencies", "ids", "partitions"), active)
            cursor.execute(_SQL["add_effective_active"], arrays)


def _wallets(figures: Iterable[tuple[int, str, UUID]]) -> set[ActiveWallet]:
    return {ActiveWallet(day, currency, hex_of(wallet_id)) for day, currency, wallet_id in figures}


def _arrays(names: Sequence[str], rows: Sequence[Sequence[str]]) -> dict[str, str]:
    """Turn rows into the texts of arrays, one for each column, by column name."""
    return dict(zip(names, map(array, zip(*rows, strict=True)), strict=True))
