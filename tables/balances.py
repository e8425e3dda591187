"""Wallets and their balances, with the position up to which commands are applied to them.

A batch of commands appends the wallets that it changed and the new position together, atomically.
`tables.balance_rows` describes the rows.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from time import perf_counter
from uuid import UUID

from mercuria.domain.wallet import Wallet
from mercuria.kafka.batch_table import BatchStore, BatchTable, ZombieWriterError
from mercuria.kafka.crash import crash_on_bug
from mercuria.observability import metrics
from mercuria.tables.balance_rows import (
    OFFSET_KEY,
    POSITION_KEY,
    AppliedPosition,
    decode_position,
    decode_wallet,
    rows_of,
)
from mercuria.worker import App

assert BatchStore.offset_key == OFFSET_KEY, "who reads the rows without Faust leaves out the same key"

REMEMBERED_WALLETS = 100_000
"""How many wallets of a partition stay decoded in memory; a wallet without metadata takes about 700 bytes."""


class BalancesTable(BatchTable):
    """The wallets of all partitions that this worker owns."""

    def __init__(self, app: App) -> None:
        super().__init__(
            app, name="balances", partitions=app.settings.partitions, help="Wallets, balances and positions."
        )
        self._wallets: defaultdict[int, dict[int, Wallet | None]] = defaultdict(dict)
        self._positions: dict[int, AppliedPosition] = {}
        self._keeping: dict[int, _Keeping] = {}

    def position(self, partition: int) -> AppliedPosition:
        """Return the position up to which `partition` is decided."""
        if partition not in self._positions:
            value = self.read(partition, [POSITION_KEY])[0]
            self._positions[partition] = decode_position(value) if value else AppliedPosition()
        return self._positions[partition]

    async def resume_at(self, partitions: Iterable[int]) -> dict[int, int]:
        """Return the offsets to resume at, for those partitions that are open.

        A new partition starts at its beginning.
        """
        return {each: self.position(each).offset + 1 for each in partitions if self.store.is_open(each)}

    def wallets(self, partition: int, ids: Iterable[UUID]) -> dict[int, Wallet | None]:
        """Return a mapping with at least the wallets `ids`, by number; None for one that does not exist.

        The caller must not change it.
        """
        known = self._wallets[partition]
        numbers = {each.int for each in ids}
        unknown = {number for number in numbers if number not in known}
        if unknown and len(known) > REMEMBERED_WALLETS:
            known.clear()
            if self.is_keeping(partition):
                known.update(self._keeping[partition].wallets)
            unknown = {number for number in numbers if number not in known}
        values = self.read(partition, [number.to_bytes(16) for number in unknown])
        for number, value in zip(unknown, values, strict=True):
            known[number] = decode_wallet(value) if value is not None else None
        return known

    async def keep(
        self, partition: int, wallets: dict[int, Wallet], position: AppliedPosition, since_ms: int
    ) -> None:
        """Make decided wallets current, and append and write them in the background.

        Only one batch of a partition is written at a time: this call waits for the previous one.

        Args:
            since_ms: when the first record of the batch arrived.
        """
        await self.kept(partition)
        self._wallets[partition].update(wallets)
        self._positions[partition] = position
        keeping = self._keeping[partition] = _Keeping(wallets, since_ms)
        keeping.task = asyncio.create_task(self._append_and_write(partition, keeping, position))

    async def kept(self, partition: int) -> None:
        """Wait until all decisions of a partition are persisted."""
        if self.is_keeping(partition):
            # The caller may be cancelled; the write continues.
            await asyncio.wait([self._keeping[partition].task])

    def is_keeping(self, partition: int) -> bool:
        """Return whether a batch is being written: a crash now would have it decided again."""
        keeping = self._keeping.get(partition)
        return keeping is not None and not keeping.task.done()

    def kept_since_ms(self, partition: int, now_ms: int) -> int:
        """Return the time of the first record that a crash now would have decided again, at most `now_ms`."""
        return min(now_ms, self._keeping[partition].since_ms) if self.is_keeping(partition) else now_ms

    async def _append_and_write(self, partition: int, keeping: "_Keeping", position: AppliedPosition) -> None:
        began_s = perf_counter()
        with crash_on_bug():
            rows = rows_of(keeping.wallets.values(), position)
            try:
                offset = await self.append(partition, rows)
            except ZombieWriterError:
                if self._keeping.get(partition) is keeping:
                    raise
                return
            # In the meantime, the partition may have moved to another worker, or may be restored from the log.
            if self._keeping.get(partition) is keeping:
                self.write(partition, rows, offset)
                metrics.commit_s.observe(perf_counter() - began_s)

    def supersedes(self, key: bytes, new: bytes, old: bytes) -> bool:
        """Return whether `new` is at least as new as `old`, by its offset or version."""
        if key == POSITION_KEY:
            return decode_position(new).offset >= decode_position(old).offset
        return decode_wallet(new).version >= decode_wallet(old).version

    def forget(self, partition: int) -> None:
        """Drop the cached data of a partition."""
        super().forget(partition)
        self._wallets.pop(partition, None)
        self._positions.pop(partition, None)
        self._keeping.pop(partition, None)


class _Keeping:
    """A batch that is being written: its wallets, and when its first record arrived."""

    def __init__(self, wallets: dict[int, Wallet], since_ms: int) -> None:
        self.wallets = wallets
        self.since_ms = since_ms
        self.task: asyncio.Task[None]
