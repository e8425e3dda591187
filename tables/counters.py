"""Analytics counters: each partition's counters, with the position up to which entries are counted in them.

PostgreSQL counts (`projections.analytics.store`). A worker keeps a copy of the counters here, so that it can
fill Redis again without a query to PostgreSQL. The counters are absolute, so writing them repeatedly is
harmless.
"""

from collections.abc import Iterator
from datetime import date
from itertools import chain, islice, takewhile
from typing import cast

import rocksdict

from mercuria.kafka.batch_table import BatchTable
from mercuria.projections.analytics.counters import NOWHERE, POSITION_KEY, Row, counter_of, is_newer, rows_of
from mercuria.projections.analytics.store import ActiveWallet, Counters, DayCounter, UserCounter
from mercuria.worker import App

ROWS_AT_ONCE = 10_000


class CountersTable(BatchTable):
    """The counters of all partitions that this worker owns."""

    keeps_wal = False

    def __init__(self, app: App) -> None:
        super().__init__(
            app, name="counters", partitions=app.settings.partitions, help="What analytics counts."
        )

    def position(self, partition: int) -> int:
        """Return the offset of the last ledger event that is counted; `NOWHERE` if there is none."""
        value = self.read(partition, [POSITION_KEY])[0]
        return NOWHERE if value is None else int(value)

    async def put(self, partition: int, counters: Counters) -> bool:
        """Write counters.

        Returns:
            False if earlier changes are missing; nothing is written then.

        Raises:
            ZombieWriterError: another worker has written to the partition.
        """
        async with self.lock(partition):
            position = self.position(partition)
            if counters.after <= position:
                return True
            if counters.before > position:
                return False
            # The position is written last: until then, some counters are newer than the position.
            rows = chain(rows_of(counters), [(POSITION_KEY, b"%d" % counters.after)])
            while chunk := list(islice(rows, ROWS_AT_ONCE)):
                await self._put(partition, chunk)
            return True

    async def _put(self, partition: int, rows: list[Row]) -> None:
        offset = await self.append(partition, rows)
        self.write(partition, rows, offset)

    def since(self, partition: int, day: date) -> Counters:
        """Return the counters of days from `day` on, without those of users."""
        # The position is read first: counters that are written in the meantime are newer, and are sent again.
        counters = Counters(NOWHERE, self.position(partition), [], [], [])
        for counter in self._counters(partition, f"day:{day}", "day;"):
            counters.days.append(cast(DayCounter, counter))
        for counter in self._counters(partition, f"active:{day}", "active;"):
            counters.active.append(cast(ActiveWallet, counter))
        return counters

    def _counters(
        self, partition: int, first: str, end: str
    ) -> Iterator[DayCounter | ActiveWallet | UserCounter]:
        database = cast(rocksdict.Rdict, self.store._db_for_partition(partition))
        rows = cast(Iterator[Row], database.items(from_key=first.encode()))
        yield from map(counter_of, takewhile(lambda row: row[0] < end.encode(), rows))

    def supersedes(self, key: bytes, new: bytes, old: bytes) -> bool:
        """Return whether a counter, or a position, is at least as new as another one."""
        return is_newer(new, old)
