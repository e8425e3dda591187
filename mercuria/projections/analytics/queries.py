"""Queries of the analytics tables. `projections.analytics.store` writes these tables."""

from collections.abc import Mapping
from datetime import date
from typing import Any, NamedTuple
from uuid import UUID

from mercuria.postgres.database import Statements, queries
from mercuria.postgres.paging import milliseconds
from mercuria.projections.analytics.counters import NOWHERE
from mercuria.projections.analytics.store import ActiveWallet, Counters, DayCounter, UserCounter
from mercuria.projections.ledger.snapshot import books

_SQL = queries("mercuria.projections.analytics", "queries.sql")


class Sum(NamedTuple):
    """The number of movements, and the sum of their amounts in minor units."""

    movements: int
    volume: int


class DailyMetrics(NamedTuple):
    """A day of a currency: its completed transactions, and the number of wallets that took part."""

    day: date
    currency: str
    deposits: Sum
    withdrawals: Sum
    transfers: Sum
    active_wallets: int


class UserCurrency(NamedTuple):
    """A user's movements of a currency. The balance is that of all the user's wallets of it, as counted."""

    currency: str
    deposits: Sum
    withdrawals: Sum
    transfers_in: Sum
    transfers_out: Sum
    volume_in: int
    volume_out: int
    balance: int
    last_activity_ms: int


class Analytics:
    """The queries.

    Raises (all methods):
        DatabaseUnavailable: PostgreSQL is unavailable, or does not answer in time.
    """

    def __init__(self, database: Statements) -> None:
        self._database = database

    async def daily(self, since: date, until: date, currency: str | None) -> list[DailyMetrics]:
        """Return the metrics of the days from `since` to `until` (exclusive), by day and currency."""
        parameters = {"since": since, "until": until, "currency": currency}
        return [_day(row) for row in await self._database.rows(_SQL["daily"], parameters)]

    async def daily_effective(self, first: date, last: date, currency: str | None) -> list[DailyMetrics]:
        """Return the metrics of the days from `first` to `last` by effective date, by day and currency.

        A transaction without an effective date counts on the day on which it was recorded.
        """
        parameters = {"first": first, "last": last, "currency": currency}
        return [_day(row) for row in await self._database.rows(_SQL["daily_effective"], parameters)]

    async def user(self, user_id: UUID) -> list[UserCurrency]:
        """Return a user's movements, by currency."""
        return [
            UserCurrency(
                row.currency,
                Sum(row.deposits, int(row.deposits_volume)),
                Sum(row.withdrawals, int(row.withdrawals_volume)),
                Sum(row.transfers_in, int(row.transfers_in_volume)),
                Sum(row.transfers_out, int(row.transfers_out_volume)),
                int(row.volume_in),
                int(row.volume_out),
                int(row.balance),
                milliseconds(row.last_activity_at),
            )
            for row in await self._database.rows(_SQL["user"], {"user_id": user_id})
        ]

    async def is_known(self, user_id: UUID) -> bool:
        """Return whether a user has an account or wallets."""
        row = await self._database.row(_SQL["is_known"], {"user_id": user_id})
        return bool(row and row.is_known)


def _day(row: Any) -> DailyMetrics:
    return DailyMetrics(
        row.day,
        row.currency,
        Sum(row.deposits, int(row.deposits_volume)),
        Sum(row.withdrawals, int(row.withdrawals_volume)),
        Sum(row.transfers, int(row.transfers_volume)),
        row.active_wallets,
    )


def daily_metrics(
    day: date, currency: str, by_kind: Mapping[str, tuple[int, int]], wallets: int
) -> DailyMetrics:
    """Return the metrics of a day, given counts and volumes by kind."""
    deposits, withdrawals, transfers = (
        Sum(*by_kind.get(kind, (0, 0))) for kind in ("deposit", "withdrawal", "transfer")
    )
    return DailyMetrics(day, currency, deposits, withdrawals, transfers, wallets)


def counters_of(url: str, partition: int) -> Counters:
    """Return all counters of a partition from one snapshot. The call blocks, so run it in a thread.

    Raises:
        BooksUnavailable: PostgreSQL is unavailable, or not migrated.
    """
    asked: dict[str, Any] = {"partition": partition}
    with books(url) as found:
        counters = Counters(NOWHERE, found.all("counted_up_to", **asked)[0][0], [], [], [])
        for rows in found.pieces("counted_days", asked):
            counters.days.extend(
                DayCounter(day, currency, kind, movements, int(volume))
                for day, currency, kind, movements, volume in rows
            )
        for rows in found.pieces("counted_active", asked):
            counters.active.extend(ActiveWallet(*row) for row in rows)
        for rows in found.pieces("counted_users", asked):
            counters.users.extend(
                UserCounter(user_id, currency, kind, direction, movements, int(volume), last_ms)
                for user_id, currency, kind, direction, movements, volume, last_ms in rows
            )
    return counters
