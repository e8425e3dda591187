"""Positions: how far a stage has brought its topic into PostgreSQL, and waiting until it is far enough."""

import asyncio
import time
from collections.abc import Mapping
from typing import NamedTuple

from psycopg2.errors import UndefinedTable

from mercuria.postgres.database import Database, DatabaseUnavailable, queries

LOOK_EVERY_S = 0.02

_SQL = queries("mercuria.projections", "checkpoints.sql")


class Place(NamedTuple):
    """How far a stage is in a partition.

    Args:
        read: the offset of the last record of its topic that is part of its tables; -1 before the first.
        command: the highest offset on the command topic whose event is part of them; -1 before the first.
        sequence: where events are numbered, the number of the last one that is part of them; 0 before the first.
        told: the number of the last event that its tables have told the next topic; 0 before the first.
        sent: the highest number that was ever put into its outbox.
    """

    read: int = -1
    command: int = -1
    sequence: int = 0
    told: int = 0
    sent: int = 0


class Positions:
    """The places of one stage."""

    def __init__(self, database: Database, stage: str) -> None:
        self._database = database
        self._stage = stage
        self._look: asyncio.Task[dict[int, Place]] | None = None
        self._looked_s = 0.0

    async def places(self) -> dict[int, Place]:
        """Return how far each partition is that was ever begun.

        Raises:
            DatabaseUnavailable: PostgreSQL is away, or not migrated.
        """
        try:
            rows = await self._database.rows(_SQL["places"], {"stage": self._stage})
        except UndefinedTable as error:
            raise DatabaseUnavailable("PostgreSQL is not migrated: run `mercuria migrate`.") from error
        return {row.partition: Place(*row[1:]) for row in rows}

    async def caught_up(self, ends: Mapping[int, int], timeout_s: float) -> bool:
        """Wait until partitions reach `ends`, the offsets behind the last records of the stage's topic.

        Returns:
            False where that takes longer than `timeout_s`.

        Raises:
            DatabaseUnavailable: PostgreSQL is away.
        """
        try:
            async with asyncio.timeout(timeout_s):
                while any(lag(ends, await self._look_together()).values()):
                    pass
        except TimeoutError:
            return False
        return True

    async def _look_together(self) -> dict[int, Place]:
        """Look once for all who wait."""
        if self._look is None or self._look.done():
            self._look = asyncio.create_task(self._look_in_turn())
        return await asyncio.shield(self._look)

    async def _look_in_turn(self) -> dict[int, Place]:
        await asyncio.sleep(self._looked_s + LOOK_EVERY_S - time.monotonic())
        try:
            return await self.places()
        finally:
            self._looked_s = time.monotonic()


def lag(ends: Mapping[int, int], places: Mapping[int, Place]) -> dict[int, int]:
    """Return by how many records each partition is behind its end."""
    return {number: max(0, end - places.get(number, Place()).read - 1) for number, end in ends.items()}
