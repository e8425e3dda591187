"""Operations: money in motion, what is refused, and how far behind the log each stage is."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

from aiokafka.errors import KafkaError
from msgspec import Meta, Struct

from mercuria.domain.events import TransactionStatus
from mercuria.domain.kinds import Kind
from mercuria.http.problems import Problem
from mercuria.timestamps import rfc3339_of
from mercuria.web.endpoint import OPERATOR, Answer, Call, endpoint
from mercuria.web.lag import LagBody
from mercuria.web.representations import Currency, MinorUnits, Time

MAX_STEPS = 360


class FlowQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Which part of the last day to show."""

    minutes: Annotated[int, Meta(ge=1, le=1440, description="How far back.")] = 60
    step: Annotated[
        int,
        Meta(
            ge=1,
            le=60,
            description=f"Minutes that are summed up together; more where there would be over {MAX_STEPS} steps.",
        ),
    ] = 1


class FlowRow(Struct, frozen=True):
    """Transactions that began in the step at `at`, and are alike: how many, and the sum of their amounts.

    `currency` is null where it was unknown when they were refused, `failure_code` unless they have failed.
    """

    at: Time
    kind: Kind
    status: TransactionStatus
    currency: Currency | None
    failure_code: str | None
    count: int
    volume: MinorUnits


class FlowBody(Struct, frozen=True):
    """What began from `since` on, where a step begins; the oldest first. Steps in which nothing began have no rows."""

    since: Time
    step: int
    data: list[FlowRow]


class InFlightRow(Struct, frozen=True):
    """Transactions of a currency that have begun and not ended."""

    currency: Currency
    count: int
    volume: MinorUnits
    oldest_at: Time


class InFlightBody(Struct, frozen=True):
    """Money that has left one wallet and not reached another one, by currency."""

    at: Time
    data: list[InFlightRow]


@endpoint(
    "GET",
    "/api/v1/operations/lag",
    access=OPERATOR,
    answers={200: LagBody},
    problems=("database_unavailable", "wallets_unavailable"),
)
async def get_lag(call: Call) -> Answer | Problem:
    """Return the consumer lag of each stage, in each partition."""
    try:
        return Answer(await call.context.lag.now(None))
    except (TimeoutError, KafkaError):
        return Problem("wallets_unavailable", "Kafka does not say how far the log goes.")


@endpoint(
    "GET",
    "/api/v1/operations/flow",
    access=OPERATOR,
    query=FlowQuery,
    answers={200: FlowBody},
    problems=("database_unavailable",),
)
async def get_flow(call: Call) -> Answer | Problem:
    """Return what has begun in the last minutes, by kind, status, currency and reason of failure."""
    query: FlowQuery = call.query
    step = max(query.step, -(-query.minutes // MAX_STEPS))
    since = _since(datetime.now(UTC), query.minutes, step)
    rows = await call.context.operations.flow(since, timedelta(minutes=step))
    return Answer(FlowBody(_time(since), step, [FlowRow(_time(row.at), *row[1:]) for row in rows]))


@endpoint(
    "GET",
    "/api/v1/operations/in-flight",
    access=OPERATOR,
    answers={200: InFlightBody},
    problems=("database_unavailable",),
)
async def get_in_flight(call: Call) -> Answer | Problem:
    """Return how much money is on its way between wallets."""
    rows = await call.context.operations.in_flight()
    found = [InFlightRow(row.currency, row.transactions, row.volume, _time(row.oldest_at)) for row in rows]
    return Answer(InFlightBody(_time(datetime.now(UTC)), found))


def _since(now: datetime, minutes: int, step: int) -> datetime:
    """Return when the first step begins. Steps are counted from 1970, as PostgreSQL counts them."""
    step_s = step * 60
    return datetime.fromtimestamp((now.timestamp() - minutes * 60) // step_s * step_s, UTC)


def _time(moment: datetime) -> str:
    return rfc3339_of(moment)
