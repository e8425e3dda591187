"""Log progress: how far the command topic is decided, and whether PostgreSQL has what was decided."""

import asyncio
from collections.abc import Iterable, Sequence

from aiokafka.errors import KafkaError

from mercuria.coalescing import Coalescer
from mercuria.projections.wallets.queries import History
from mercuria.tables.balance_rows import AppliedPosition, read_rows
from mercuria.tables.balances import BalancesTable
from mercuria.topics import BALANCES_CHANGELOG, WALLET_COMMANDS, WALLET_EVENTS
from mercuria.worker import App

CAUGHT_UP_WITHIN_S = 3.0
KAFKA_ANSWERS_WITHIN_S = 3.0
LOOK_EVERY_S = 0.01
LOOKS_BEFORE_READING = 20


class LogProgress:
    """The progress of this worker and of the others."""

    def __init__(self, app: App, balances: BalancesTable, history: History) -> None:
        self._app = app
        self._balances = balances
        self._history = history
        self.is_caught_up: Coalescer[None, bool] = Coalescer(self._catch_up)
        """Returns whether PostgreSQL has everything that was in the log when asked. The argument is None."""

    def is_mine(self, partition: int) -> bool:
        """Return whether this worker decides for a partition now, so that its state in memory is valid."""
        return (
            self._app.locks.is_held(partition)
            and self._balances.store.is_open(partition)
            and not self._app.rebalancing
            and not self._app.in_recovery
        )

    async def is_new(self) -> bool:
        """Return whether the command topic is still empty; False if Kafka does not answer."""
        try:
            async with asyncio.timeout(KAFKA_ANSWERS_WITHIN_S):
                ends = await self._ends(WALLET_COMMANDS)
        except (TimeoutError, KafkaError):
            return False
        return not any(ends.values())

    async def decided(self, partition: int) -> int:
        """Wait until all that a partition of the command topic holds now is decided; return the decided offset.

        If the partition moves to another worker meanwhile, return at once: this worker no longer has its table.
        """
        end = (await self._app.log_ends.ends(WALLET_COMMANDS, [partition]))[partition]
        looks, before = 0, -1
        while self.is_mine(partition) and (offset := self._balances.position(partition).offset) < end - 1:
            looks = looks + 1 if offset == before else 0
            before = offset
            if looks == LOOKS_BEFORE_READING:
                if await self._is_blank(partition, offset + 1, end):
                    return offset
                looks = 0
            await asyncio.sleep(LOOK_EVERY_S)
        return end - 1

    async def decided_up_to(self, partitions: Iterable[int]) -> dict[int, int]:
        """Return the ends of the decided ranges of partitions, without partitions of which nothing is decided."""
        mine = [each for each in partitions if self.is_mine(each)]
        decided = {each: self._balances.position(each).offset + 1 for each in mine}
        others = set(partitions) - set(mine)
        return decided | (await self._decided_by_others(others) if others else {})

    async def _decided_by_others(self, partitions: Iterable[int]) -> dict[int, int]:
        """Return up to where partitions are decided, from the changelog of their balances.

        A position ends each of its batches.

        The offsets that workers commit are not sufficient: a batch that was revoked from a worker counts as read.
        """
        last = await self._app.log_ends.last_records(BALANCES_CHANGELOG, partitions)
        rows = {partition: next(read_rows([(each.key, each.value)])) for partition, each in last.items()}
        return {
            partition: row.offset + 1 for partition, row in rows.items() if isinstance(row, AppliedPosition)
        }

    async def _catch_up(self, callers: Sequence[None]) -> Sequence[bool]:
        """Wait until PostgreSQL has everything that is in the command log now.

        One wait serves all callers that asked before it began.
        """
        try:
            async with asyncio.timeout(CAUGHT_UP_WITHIN_S):
                await self._all_decided()
                is_there = await self._history.caught_up(await self._ends(WALLET_EVENTS), CAUGHT_UP_WITHIN_S)
        except (TimeoutError, KafkaError):
            is_there = False
        return [is_there] * len(callers)

    async def _all_decided(self) -> None:
        """Wait until everything in the command topic is decided, by any worker."""
        ends = await self._ends(WALLET_COMMANDS)
        looks = 0
        while True:
            decided = await self.decided_up_to(ends)
            ends = {each: end for each, end in ends.items() if decided.get(each, 0) < end}
            if not ends:
                return
            looks += 1
            if looks % LOOKS_BEFORE_READING == 0:
                blank = [
                    each
                    for each, end in ends.items()
                    if await self._is_blank(each, decided.get(each, 0), end)
                ]
                ends = {each: end for each, end in ends.items() if each not in blank}
            await asyncio.sleep(LOOK_EVERY_S)

    async def _ends(self, topic: str) -> dict[int, int]:
        return await self._app.log_ends.ends(topic, range(self._app.settings.partitions))

    async def _is_blank(self, partition: int, start: int, end: int) -> bool:
        """Return whether the remaining records are transaction markers, which are not decided."""
        return await self._app.log_ends.is_blank(WALLET_COMMANDS, partition, start, end)
