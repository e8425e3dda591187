"""The monitor of a soak: samples memory, disks and consumer lag, and notices parts that ended by themselves."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import psutil

from mercuria.embedded.stack import Stack
from tests.harness.audit.violations import Violations
from tests.harness.bench.measuring import family_rss_bytes
from tests.harness.soak.growth import Growth
from tests.harness.soak.report import MIB

SAMPLE_EVERY_S = 5.0
BYTES_A_BLOCK = 512
"""The unit of `st_blocks`, whatever the file system's is."""


class Monitor:
    """Samples the parts of a stack.

    Args:
        errors: where it is noted that a part ended by itself.
        warm_up_s: which samples of a new process do not count.
        read_lag: returns the consumer lag of each projection, in records.
    """

    def __init__(
        self,
        stack: Stack,
        errors: Violations,
        warm_up_s: float,
        read_lag: Callable[[], Awaitable[dict[str, int]]],
    ) -> None:
        self.memory = {part.name: Growth(warm_up_s) for part in stack.parts}
        self.disk: dict[str, Growth] = {}
        self.lag: dict[str, int] = {}
        self.lag_at_most: dict[str, int] = {}
        self.expects_restarts = False
        """Whether parts may end and start again just now."""
        self._stack = stack
        self._errors = errors
        self._warm_up_s = warm_up_s
        self._read_lag = read_lag
        self._pids: dict[str, int] = {}

    def begin_fault(self) -> None:
        """Take it from now on that parts end."""
        self.expects_restarts = True

    def end_fault(self) -> None:
        """Take the processes that there are now for those that have to stay."""
        self._pids = self._pids_now()
        self.expects_restarts = False

    def memory_mib(self) -> dict[str, float]:
        """Return the latest memory of each part, in MiB."""
        return {name: growth.last / MIB for name, growth in self.memory.items()}

    async def run(self) -> None:
        """Sample until cancelled.

        Raises:
            StackError: the stack has failed.
        """
        self._pids = self._pids_now()
        while True:
            if self._stack.failure is not None:
                raise self._stack.failure
            pids, at_s = self._pids_now(), time.monotonic()
            self._check_restarts(pids)
            self._sample_memory(pids, at_s)
            await self._sample_disk(at_s)
            await self._sample_lag()
            await asyncio.sleep(SAMPLE_EVERY_S)

    def _pids_now(self) -> dict[str, int]:
        return {part.name: part.pid for part in self._stack.parts if part.pid is not None}

    def _check_restarts(self, pids: dict[str, int]) -> None:
        for name in pids.keys() & self._pids.keys():
            if pids[name] != self._pids[name] and not self.expects_restarts:
                self._errors.add(f"{name} ended by itself, and was started again.")
        self._pids |= pids

    def _sample_memory(self, pids: dict[str, int], at_s: float) -> None:
        for name, pid in pids.items():
            with suppress(psutil.Error):  # It may just have been killed.
                self.memory[name].take(pid, at_s, family_rss_bytes(pid))

    async def _sample_disk(self, at_s: float) -> None:
        sizes = await asyncio.to_thread(_disk_usage, self._stack.directory.path)
        for name, size in sizes.items():
            self.disk.setdefault(name, Growth(self._warm_up_s)).take(None, at_s, size)

    async def _sample_lag(self) -> None:
        self.lag = await self._read_lag()
        for projection, records in self.lag.items():
            self.lag_at_most[projection] = max(records, self.lag_at_most.get(projection, 0))


def _disk_usage(directory: Path) -> dict[str, int]:
    """Return how many bytes each part of a data directory takes on disk: files that are full of holes take less."""
    return {folder.name: _size(folder) for folder in directory.iterdir() if folder.is_dir()}


def _size(folder: Path) -> int:
    size = 0
    for path in folder.rglob("*"):
        # Segments and temporary files disappear meanwhile.
        with suppress(OSError):
            size += path.lstat().st_blocks * BYTES_A_BLOCK
    return size
