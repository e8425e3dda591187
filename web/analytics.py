"""Figures of the ledger: of each day, and of each user."""

from typing import Annotated, Literal
from uuid import UUID

from msgspec import Meta, Struct, field

from mercuria.domain.analytics import DAY_MS, day_of
from mercuria.domain.commands import CurrencyCode
from mercuria.http.problems import Problem
from mercuria.postgres.database import DatabaseUnavailable
from mercuria.projections.analytics.counters import date_of
from mercuria.projections.analytics.queries import DailyMetrics, Sum, UserCurrency
from mercuria.redis.client import UNAVAILABLE
from mercuria.timestamps import rfc3339
from mercuria.web.endpoint import OPERATOR, Answer, Call, endpoint
from mercuria.web.read_routing import soon
from mercuria.web.representations import Currency, MinorUnits, Time
from mercuria.web.timestamps import Timestamp, now_ms, read_period

DAYS = 30
MAX_DAYS = 366
FIRST_EFFECTIVE_DAY, LAST_EFFECTIVE_DAY = day_of("0001-01-01"), day_of("9999-12-31")


class DailyQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Which days to show: those that have begun at `from` or later, and before `to`. Without, the last 30.

    `by` chooses the day on which a movement counts: when it was recorded, or by its effective date, where it has one.
    """

    from_: Timestamp | None = field(name="from", default=None)
    to: Timestamp | None = None
    currency: CurrencyCode | None = None
    by: Literal["recorded", "effective"] = "recorded"


class SumBody(Struct, frozen=True):
    """How many there were, and their amounts together."""

    count: int
    volume: MinorUnits


class DailyRow(Struct, frozen=True):
    """What was completed on a day (in UTC) in a currency. `active_wallets` took part in at least one movement."""

    date: Annotated[str, Meta(extra_json_schema={"format": "date"})]
    currency: Currency
    deposits: SumBody
    withdrawals: SumBody
    transfers: SumBody
    active_wallets: int


class DailyBody(Struct, frozen=True):
    """Days by date and currency. A day on which nothing was completed has no row."""

    data: list[DailyRow]


class UserCurrencyBody(Struct, frozen=True):
    """A user's completed movements of a currency, and the balance of all wallets of it after them.

    A transfer between two of the user's own wallets counts on both sides.
    """

    currency: Currency
    balance: MinorUnits
    deposits: SumBody
    withdrawals: SumBody
    transfers_in: SumBody
    transfers_out: SumBody
    volume_in: MinorUnits
    volume_out: MinorUnits
    last_activity_at: Time


class UserBody(Struct, frozen=True):
    """A user's snapshot. `last_activity_at` is null where nothing was moved yet."""

    user_id: UUID
    last_activity_at: Time | None
    currencies: list[UserCurrencyBody]


@endpoint(
    "GET",
    "/api/v1/metrics/daily",
    access=OPERATOR,
    query=DailyQuery,
    answers={200: DailyBody},
    problems=("invalid_period", "too_many_days", "database_unavailable"),
)
async def get_daily(call: Call) -> Answer | Problem:
    """Return what was completed on each day, by currency. It is counted a moment after it is in the ledger.

    With `by=effective`, a movement counts on the day of its `effective_at` where it has one, which may lie in any year.
    """
    query: DailyQuery = call.query
    if query.by == "effective":
        return await _by_effective_date(call)
    period = read_period(query.from_, query.to)
    if isinstance(period, Problem):
        return period
    tomorrow = now_ms() // DAY_MS + 1
    until = tomorrow if period.until_ms is None else min(_first_day(period.until_ms), tomorrow)
    since = until - DAYS if period.since_ms is None else min(_first_day(period.since_ms), tomorrow)
    if until - since > MAX_DAYS:
        return Problem("too_many_days")
    first, last = date_of(since), date_of(until)
    try:
        async with soon():
            found = await call.context.analytics.daily(first, last, query.currency)
    except DatabaseUnavailable:
        try:
            partitions = range(call.context.settings.partitions)
            cached = await call.context.analytics_cache.daily(first, last, partitions)
        except UNAVAILABLE:
            cached = None
        if cached is None:
            return Problem("database_unavailable")
        found = [each for each in cached if query.currency in (None, each.currency)]
    return Answer(DailyBody([_daily_row(each) for each in found]))


@endpoint(
    "GET",
    "/api/v1/metrics/users/{user_id}",
    answers={200: UserBody},
    problems=("not_yours", "user_not_found", "database_unavailable"),
)
async def get_user(call: Call) -> Answer | Problem:
    """Sum up what was completed in a user's wallets: one's own, or anybody's for an operator."""
    user_id, analytics = call.path["user_id"], call.context.analytics
    is_own = user_id == call.caller.id
    if not is_own and call.caller.role != "operator":
        return Problem("not_yours")
    async with soon():
        found = await analytics.user(user_id)
        if not found and not is_own and not await analytics.is_known(user_id):
            return Problem("user_not_found")
    last_ms = max((each.last_activity_ms for each in found), default=None)
    return Answer(
        UserBody(
            user_id, None if last_ms is None else rfc3339(last_ms), [_currency_body(each) for each in found]
        )
    )


async def _by_effective_date(call: Call) -> Answer | Problem:
    """Answer from PostgreSQL alone: figures by effective date have no copies."""
    query: DailyQuery = call.query
    period = read_period(query.from_, query.to, first_ms=FIRST_EFFECTIVE_DAY * DAY_MS)
    if isinstance(period, Problem):
        return period
    tomorrow = now_ms() // DAY_MS + 1
    since = None if period.since_ms is None else _first_day(period.since_ms)
    # Movements with an effective date in the future are shown to callers that ask for those days.
    until = max(tomorrow, (since or 0) + 1) if period.until_ms is None else _first_day(period.until_ms)
    first = max(until - DAYS, FIRST_EFFECTIVE_DAY) if since is None else since
    if until - first > MAX_DAYS:
        return Problem("too_many_days")
    last = min(until - 1, LAST_EFFECTIVE_DAY)
    if first > last:
        return Answer(DailyBody([]))
    async with soon():
        rows = await call.context.analytics.daily_effective(date_of(first), date_of(last), query.currency)
    return Answer(DailyBody([_daily_row(each) for each in rows]))


def _first_day(at_ms: int) -> int:
    """Return the number of the first day that begins at or after a point in time."""
    return -(-at_ms // DAY_MS)


def _daily_row(day: DailyMetrics) -> DailyRow:
    return DailyRow(
        day.day.isoformat(),
        day.currency,
        _sum(day.deposits),
        _sum(day.withdrawals),
        _sum(day.transfers),
        day.active_wallets,
    )


def _currency_body(found: UserCurrency) -> UserCurrencyBody:
    return UserCurrencyBody(
        found.currency,
        found.balance,
        _sum(found.deposits),
        _sum(found.withdrawals),
        _sum(found.transfers_in),
        _sum(found.transfers_out),
        found.volume_in,
        found.volume_out,
        rfc3339(found.last_activity_ms),
    )


def _sum(found: Sum) -> SumBody:
    return SumBody(found.movements, found.volume)
