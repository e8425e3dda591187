"""Operations: what moves, what is refused, and how far stages are, summed up for operators by PostgreSQL."""

from datetime import datetime, timedelta
from typing import NamedTuple

from mercuria.domain.events import Kind, TransactionStatus
from mercuria.postgres.database import Statements, queries

_SQL = queries("mercuria.projections", "operations.sql")


class Read(NamedTuple):
    """The last offset of its topic that a stage has read, and the highest one of the command topic that led to it."""

    offset: int
    command_offset: int


class Flow(NamedTuple):
    """Transactions that began in the step that starts at `at`, and are alike. `volume` is their sum in minor units.

    `currency` is None where they were refused before anybody knew it, and `failure_code` where they have not failed.
    """

    at: datetime
    kind: Kind
    status: TransactionStatus
    currency: str | None
    failure_code: str | None
    transactions: int
    volume: int


class InFlight(NamedTuple):
    """Transactions of a currency that have begun and not ended: how many, what they move, and since when."""

    currency: str
    transactions: int
    volume: int
    oldest_at: datetime


class Operations:
    """Reads.

    Raises (all methods):
        DatabaseUnavailable: PostgreSQL is away, or does not answer in time.
    """

    def __init__(self, database: Statements) -> None:
        self._database = database

    async def places(self) -> dict[str, dict[int, Read]]:
        """Return how far each stage that has begun is in each partition."""
        found: dict[str, dict[int, Read]] = {}
        for row in await self._database.rows(_SQL["places"]):
            found.setdefault(row.stage, {})[row.partition] = Read(row.read_offset, row.command_offset)
        return found

    async def flow(self, since: datetime, step: timedelta) -> list[Flow]:
        """Return what has begun since a moment, by steps of whole minutes that are counted from 1970 on."""
        parameters = {"since": since, "step": int(step / timedelta(minutes=1))}
        rows = await self._database.rows(_SQL["flow"], parameters)
        return [Flow(*(*row[:-1], int(row.volume))) for row in rows]

    async def in_flight(self) -> list[InFlight]:
        """Return what has begun and not ended."""
        rows = await self._database.rows(_SQL["in_flight"])
        return [InFlight(row.currency, row.transactions, int(row.volume), row.oldest_at) for row in rows]
