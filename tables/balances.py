"""Wallets and their balances, with the position that says up to where the commands are part of them.

A batch of commands appends the wallets that it touched and the new position together, whole or not at all. What the
rows look like: `tables.balance_rows`.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from time import perf_counter
from uuid import UUID

from mercuria.app import app, settings
from mercuria.domain.wallet import Wallet
from mercuria.kafka.batch_table import BatchTable, ZombieWriterError
from mercuria.kafka.crash import crash_on_bug
from mercuria.observability import metrics
from mercuria.tables.balance_rows import (
    POSITION_KEY,
    AppliedPosition,
    decode_position,
    decode_wallet,
    rows_of,
)
from mercuria.topics import WALLET_COMMANDS

REMEMBERED_WALLETS = 100_000
"""How many wallets of a partition are kept decoded; a wallet without metadata takes about 700 bytes."""


class BalancesTable(BatchTable):
    """The wallets of all partitions that this worker owns."""

    def __init__(self) -> None:
        super().__init__(
            app, name="balances", partitions=settings.partitions, help="Wallets, balances and positions."
        )
        self._wallets: defaultdict[int, dict[int, Wallet | None]] = defaultdict(dict)
        self._positions: dict[int, AppliedPosition] = {}
        self._keeping: dict[int, _Keeping] = {}

    def position(self, partition: int) -> AppliedPosition:
        """Return up to where `partition` is decided."""
        if partition not in self._positions:
            value = self.read(partition, [POSITION_KEY])[0]
            self._positions[partition] = decode_position(value) if value else AppliedPosition()
        return self._positions[partition]

    async def resume_at(self, partitions: Iterable[int]) -> dict[int, int]:
        """Return the offsets to go on with, of those partitions that are open. A new one begins at the beginning."""
        return {each: self.position(each).offset + 1 for each in partitions if self.store.is_open(each)}

    def wallets(self, partition: int, ids: Iterable[UUID]) -> dict[int, Wallet | None]:
        """Return a mapping that has at least the wallets `ids`, by number; None stands for one that does not exist.

        It is not to be changed.
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
        """Make decided wallets the current ones, and append and write them in the background.

        One batch of a partition is on its way at a time: this waits for the one before.

        Args:
            since_ms: when the first record of the batch came.
        """
        await self.kept(partition)
        self._wallets[partition].update(wallets)
        self._positions[partition] = position
        keeping = self._keeping[partition] = _Keeping(wallets, since_ms)
        keeping.task = asyncio.create_task(self._append_and_write(partition, keeping, position))

    async def kept(self, partition: int) -> None:
        """Wait until all that was decided of a partition is kept."""
        if self.is_keeping(partition):
            # Whoever waits may be cancelled; what is on its way goes on.
            await asyncio.wait([self._keeping[partition].task])

    def is_keeping(self, partition: int) -> bool:
        """Return whether a batch is on its way: a crash now would have it decided once more."""
        keeping = self._keeping.get(partition)
        return keeping is not None and not keeping.task.done()

    def kept_since_ms(self, partition: int, now_ms: int) -> int:
        """Return when the first record came that a crash now would have decided once more, at the latest `now_ms`."""
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
            # In the meantime, the partition may have gone to somebody else, or may be read from the log again.
            if self._keeping.get(partition) is keeping:
                self.write(partition, rows, offset)
                metrics.commit_s.observe(perf_counter() - began_s)

    def supersedes(self, key: bytes, new: bytes, old: bytes) -> bool:
        """Return which of two rows is the newer one: the one with the higher offset or version."""
        if key == POSITION_KEY:
            return decode_position(new).offset >= decode_position(old).offset
        return decode_wallet(new).version >= decode_wallet(old).version

    def forget(self, partition: int) -> None:
        """Drop what is remembered of a partition."""
        super().forget(partition)
        self._wallets.pop(partition, None)
        self._positions.pop(partition, None)
        self._keeping.pop(partition, None)


class _Keeping:
    """A batch on its way into the changelog and RocksDB: its wallets, and when its first record came."""

    def __init__(self, wallets: dict[int, Wallet], since_ms: int) -> None:
        self.wallets = wallets
        self.since_ms = since_ms
        self.task: asyncio.Task[None]


balances = BalancesTable()
app.tables.add(balances)
app.positions[WALLET_COMMANDS] = balances.resume_at
