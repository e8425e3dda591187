"""Queries for operators: transactions, refusals and checkpoints of projections, summed up by PostgreSQL."""

from datetime import datetime, timedelta
from typing import NamedTuple

from mercuria.domain.events import TransactionStatus
from mercuria.domain.kinds import Kind
from mercuria.postgres.database import Statements, queries

_SQL = queries("mercuria.projections", "operations.sql")


class Read(NamedTuple):
    """The last offset that a projection has read of its topic, and the highest command offset behind it."""

    offset: int
    command_offset: int


class Flow(NamedTuple):
    """A group of like transactions that began in the step from `at` on. `volume` is their sum in minor units.

    `currency` is None if they were refused before it was known, and `failure_code` if they have not failed.
    """

    at: datetime
    kind: Kind
    status: TransactionStatus
    currency: str | None
    failure_code: str | None
    transactions: int
    volume: int


class InFlight(NamedTuple):
    """The transactions of a currency in flight: their number and volume, and when the oldest began."""

    currency: str
    transactions: int
    volume: int
    oldest_at: datetime


class Operations:
    """The queries.

    Raises (all methods):
        DatabaseUnavailable: PostgreSQL is unavailable, or does not answer in time.
    """

    def __init__(self, database: Statements) -> None:
        self._database = database

    async def checkpoints(self) -> dict[str, dict[int, Read]]:
        """Return the checkpoint of each projection that has begun, by partition."""
        found: dict[str, dict[int, Read]] = {}
        for row in await self._database.rows(_SQL["checkpoints"]):
            found.setdefault(row.stage, {})[row.partition] = Read(row.read_offset, row.command_offset)
        return found

    async def flow(self, since: datetime, step: timedelta) -> list[Flow]:
        """Return the transactions begun since a time, in steps of whole minutes aligned to 1970."""
        parameters = {"since": since, "step": int(step / timedelta(minutes=1))}
        rows = await self._database.rows(_SQL["flow"], parameters)
        return [Flow(*(*row[:-1], int(row.volume))) for row in rows]

    async def in_flight(self) -> list[InFlight]:
        """Return the transactions that have begun and not ended."""
        rows = await self._database.rows(_SQL["in_flight"])
        return [InFlight(row.currency, row.transactions, int(row.volume), row.oldest_at) for row in rows]
