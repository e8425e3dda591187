"""Checkpoints: how far a projection has written its topic to PostgreSQL, and waiting for it to catch up."""

import asyncio
import time
from collections.abc import Mapping
from typing import NamedTuple

from psycopg2.errors import UndefinedTable

from mercuria.postgres.database import Database, DatabaseUnavailable, queries

LOOK_EVERY_S = 0.02

_SQL = queries("mercuria.projections", "checkpoints.sql")


class Checkpoint(NamedTuple):
    """The checkpoint of a projection in a partition.

    Args:
        read: the offset of the last record of the topic that is part of the tables; -1 before the first.
        command: the highest offset on the command topic whose event is in the tables; -1 before the first.
        sequence: on a topic with numbered events, the last number in the tables; 0 before the first.
        emitted: the number of the last event that the tables have emitted to the next topic; 0 at first.
        sent: the highest number that was ever put into the outbox.
    """

    read: int = -1
    command: int = -1
    sequence: int = 0
    emitted: int = 0
    sent: int = 0


class Positions:
    """The checkpoints of one projection."""

    def __init__(self, database: Database, stage: str) -> None:
        self._database = database
        self._stage = stage
        self._look: asyncio.Task[dict[int, Checkpoint]] | None = None
        self._looked_s = 0.0

    async def checkpoints(self) -> dict[int, Checkpoint]:
        """Return the checkpoint of each partition that has one.

        Raises:
            DatabaseUnavailable: PostgreSQL is unavailable, or not migrated.
        """
        try:
            rows = await self._database.rows(_SQL["checkpoints"], {"stage": self._stage})
        except UndefinedTable as error:
            raise DatabaseUnavailable("PostgreSQL is not migrated: run `mercuria migrate`.") from error
        return {row.partition: Checkpoint(*row[1:]) for row in rows}

    async def caught_up(self, ends: Mapping[int, int], timeout_s: float) -> bool:
        """Wait until partitions reach `ends`, the end offsets of the projection's topic.

        Returns:
            False if that takes longer than `timeout_s`.

        Raises:
            DatabaseUnavailable: PostgreSQL is unavailable.
        """
        try:
            async with asyncio.timeout(timeout_s):
                while any(lag(ends, await self._look_together()).values()):
                    pass
        except TimeoutError:
            return False
        return True

    async def _look_together(self) -> dict[int, Checkpoint]:
        """Read the checkpoints once for all waiting callers."""
        if self._look is None or self._look.done():
            self._look = asyncio.create_task(self._look_in_turn())
        return await asyncio.shield(self._look)

    async def _look_in_turn(self) -> dict[int, Checkpoint]:
        await asyncio.sleep(self._looked_s + LOOK_EVERY_S - time.monotonic())
        try:
            return await self.checkpoints()
        finally:
            self._looked_s = time.monotonic()


def lag(ends: Mapping[int, int], checkpoints: Mapping[int, Checkpoint]) -> dict[int, int]:
    """Return the consumer lag of each partition, in records."""
    return {
        number: max(0, end - checkpoints.get(number, Checkpoint()).read - 1) for number, end in ends.items()
    }
