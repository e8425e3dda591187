"""How the benchmarks watch a worker: its progress in Kafka, its processor time and memory, and what it wrote."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil
from aiokafka import AIOKafkaConsumer, TopicPartition

from tests.harness.errors import StalledError

POLL_S = 0.02
STALLED_AFTER_S = 30


async def end_of(consumer: AIOKafkaConsumer, topic: str, partitions: int) -> int:
    """Return how many records the partitions of a topic have had in all."""
    ends = await consumer.end_offsets([TopicPartition(topic, number) for number in range(partitions)])
    return sum(ends.values())


async def time_until(
    consumer: AIOKafkaConsumer, topic: str, partitions: int, start: int, count: int
) -> tuple[float, int]:
    """Watch `topic` grow by `count` records after `start`.

    Returns:
        Seconds from the first sight of growth to the last, and how many records came in that time.
    """
    began, first, last = 0.0, 0, start
    moved = time.monotonic()
    while True:
        end = await end_of(consumer, topic, partitions)
        now = time.monotonic()
        if end > last:
            moved, last = now, end
        if end > start and not began:
            began, first = now, end
        if end - start >= count:
            return now - began, end - first
        if now - moved > STALLED_AFTER_S:
            raise StalledError(f"Nothing came for {STALLED_AFTER_S} s: {end - start} of {count} are there.")
        await asyncio.sleep(POLL_S)


class ProcessMeter:
    """Processor time and peak memory of a process, between `start` and `stop`."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._task: asyncio.Task[None] | None = None
        self._cpu_s = 0.0
        self.cpu_s = 0.0
        self.peak_bytes = 0

    def start(self) -> None:
        """Begin to watch."""
        self._cpu_s = self._used_s()
        self._task = asyncio.create_task(self._watch())

    def stop(self) -> None:
        """End, and settle `cpu_s`."""
        assert self._task is not None
        self._task.cancel()
        self.cpu_s = self._used_s() - self._cpu_s

    def _used_s(self) -> float:
        times = self._process.cpu_times()
        return float(times.user + times.system)

    async def _watch(self) -> None:
        while True:
            self.peak_bytes = max(self.peak_bytes, self._process.memory_info().rss)
            await asyncio.sleep(0.1)


def family_cpu_s(pid: int) -> float:
    """Return the processor time, in seconds, that a process and its children have taken, those that ended included."""
    process = psutil.Process(pid)
    taken = _cpu_s(process)
    for child in process.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            taken += _cpu_s(child)
    return taken


def family_rss_bytes(pid: int) -> int:
    """Return the memory of a process and its children. What they share counts once, as it is there once."""
    process = psutil.Process(pid)
    own_bytes, shared_bytes = 0, [0]
    for each in (process, *process.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            memory = each.memory_info()
            shared_bytes.append(getattr(memory, "shared", 0))  # Linux has it.
            own_bytes += memory.rss - shared_bytes[-1]
    return own_bytes + max(shared_bytes)


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system + times.children_user + times.children_system)


def bytes_on_disk(kafka_directory: Path, topics: Sequence[str]) -> int:
    """Return how many bytes Kafka's segments of some topics have."""
    return sum(
        segment.stat().st_size
        for topic in topics
        for segment in (kafka_directory / "data").glob(f"{topic}-*/*.log")
    )
