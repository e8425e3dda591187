"""Operations: money in motion, what is refused, and how far behind the log each stage is."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Annotated

from aiokafka.errors import KafkaError
from msgspec import Meta, Struct

from mercuria.app import app, long_reads, settings
from mercuria.coalescing import Coalescer
from mercuria.domain.events import Kind, TransactionStatus
from mercuria.http.problems import Problem
from mercuria.projections.operations import Operations, Read
from mercuria.timestamps import rfc3339_of
from mercuria.topics import STAGES, WALLET_COMMANDS
from mercuria.web.endpoint import OPERATOR, Answer, Call, endpoint
from mercuria.web.reading import KAFKA_ANSWERS_WITHIN_S, decided_up_to
from mercuria.web.representations import Currency, MinorUnits, Time

TOPICS_OF_STAGES: Mapping[str, str] = {"wallets": WALLET_COMMANDS, **STAGES}
"""The topic that each stage reads, in the order in which a command passes through the stages."""

DECIDES = "wallets"
"""The only stage whose position is not in PostgreSQL."""

NEXT = "transactions"
"""The projection that follows it."""

OWNERS_ANSWER_WITHIN_S = 1.0
MAX_STEPS = 360

operations = Operations(long_reads)


class PartitionLag(Struct, frozen=True):
    """One partition of a stage's topic: `end` is the offset that its next record will have."""

    partition: int
    end: int
    lag: Annotated[int, Meta(description="How many records the stage has not worked through.")]


class StageLag(Struct, frozen=True):
    """A stage, the topic that it reads, and by how many records it is behind in all."""

    stage: str
    topic: str
    lag: int
    partitions: list[PartitionLag]


class LagBody(Struct, frozen=True):
    """How far behind the stages are, in the order in which a command comes through them."""

    at: Time
    stages: list[StageLag]


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
async def get_lag(_call: Call) -> Answer | Problem:
    """Return the consumer lag of each stage, in each partition."""
    try:
        # One query answers several callers that ask at the same moment.
        return Answer(await _lag_now(None))
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
    rows = await operations.flow(since, timedelta(minutes=step))
    return Answer(FlowBody(_time(since), step, [FlowRow(_time(row.at), *row[1:]) for row in rows]))


@endpoint(
    "GET",
    "/api/v1/operations/in-flight",
    access=OPERATOR,
    answers={200: InFlightBody},
    problems=("database_unavailable",),
)
async def get_in_flight(_call: Call) -> Answer | Problem:
    """Return how much money is on its way between wallets."""
    rows = await operations.in_flight()
    found = [InFlightRow(row.currency, row.transactions, row.volume, _time(row.oldest_at)) for row in rows]
    return Answer(InFlightBody(_time(datetime.now(UTC)), found))


async def _look(callers: Sequence[None]) -> Sequence[LagBody]:
    # Positions are read before the ends of their topics; otherwise a stage could appear to be ahead of its topic.
    read = await operations.places()
    async with asyncio.timeout(KAFKA_ANSWERS_WITHIN_S):
        stages = [
            await _stage_lag(stage, topic, read)
            for stage, topic in TOPICS_OF_STAGES.items()
            if stage == DECIDES or stage in read
        ]
    return [LagBody(_time(datetime.now(UTC)), stages)] * len(callers)


_lag_now: Coalescer[None, LagBody] = Coalescer(_look)


async def _stage_lag(stage: str, topic: str, read: Mapping[str, Mapping[int, Read]]) -> StageLag:
    ends = await app.log_ends.ends(topic, range(settings.partitions))
    if stage == DECIDES:
        done = await _decided(ends, read.get(NEXT, {}))
    else:
        done = {number: place.offset + 1 for number, place in read[stage].items()}
    rows = [
        PartitionLag(number, end, await app.log_ends.left(topic, number, done.get(number, 0), end))
        for number, end in sorted(ends.items())
    ]
    return StageLag(stage, topic, sum(row.lag for row in rows), rows)


async def _decided(ends: Mapping[int, int], written: Mapping[int, Read]) -> dict[int, int]:
    """Return up to where partitions are decided.

    Records that the next projection has written are decided; only the other partitions are queried.
    """
    done = {number: place.command_offset + 1 for number, place in written.items()}
    rest = [number for number, end in ends.items() if done.get(number, 0) < end]
    if rest:
        with suppress(TimeoutError):
            async with asyncio.timeout(OWNERS_ANSWER_WITHIN_S):
                for number, offset in (await decided_up_to(rest)).items():
                    done[number] = max(offset, done.get(number, 0))
    return done


def _since(now: datetime, minutes: int, step: int) -> datetime:
    """Return when the first step begins. Steps are counted from 1970, as PostgreSQL counts them."""
    step_s = step * 60
    return datetime.fromtimestamp((now.timestamp() - minutes * 60) // step_s * step_s, UTC)


def _time(moment: datetime) -> str:
    return rfc3339_of(moment)
