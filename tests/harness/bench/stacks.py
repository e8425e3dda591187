"""The stacks that benchmarks measure: throwaway ones, whose workers can be profiled."""

import pstats
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType

import click
import psutil
from rich.console import Console

from mercuria.embedded.part import Part
from mercuria.embedded.stack import WORKER_COMMAND, Stack
from tests.harness.bench import profiled
from tests.harness.bench.measuring import family_cpu_s
from tests.harness.stacks import PARTITIONS, data_directory, fresh_stack

POLL_S = 0.1
PROFILE_WITHIN_S = 30
PROFILE_LINES = 45
PROFILE_FILE = "profile"
"""Beside the data directory."""


@contextmanager
def bench_stack(
    workers: int,
    partitions: int = PARTITIONS,
    *,
    profile: bool = False,
    settings: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Stack]:
    """Yield a started stack in a temporary directory; its parts are not started again when they end.

    Args:
        profile: whether `profiling` can profile its workers.
    """
    with data_directory() as directory:
        profiled_worker = (sys.executable, "-P", profiled.__file__, str(directory / PROFILE_FILE), "worker")
        stack = fresh_stack(
            directory / "data",
            workers,
            lambda _: None,
            settings,
            partitions=partitions,
            supervise=False,
            worker_command=profiled_worker if profile else WORKER_COMMAND,
        )
        with stack:
            yield stack


def pid_of(part: Part) -> int:
    """Return a part's process id, or raise an error with how it ended."""
    if part.pid is None:
        raise click.ClickException(part.with_log(f"{part.title} ended ({part.ending()})"))
    return part.pid


def cpu_s_by_part(stack: Stack) -> dict[str, float]:
    """Return the processor time that each part has taken, in seconds."""
    return {part.name: family_cpu_s(pid_of(part)) for part in stack.parts}


@contextmanager
def profiling(stack: Stack, console: Console) -> Iterator[None]:
    """Print where the first worker's time goes in the block."""
    worker, file = stack.workers[0], stack.directory.path.with_name(PROFILE_FILE)
    process = psutil.Process(pid_of(worker))
    process.send_signal(profiled.START)
    yield
    process.send_signal(profiled.STOP)
    deadline = time.monotonic() + PROFILE_WITHIN_S
    while not file.exists():
        if time.monotonic() > deadline:
            raise click.ClickException(worker.with_log("The worker does not write its profile"))
        time.sleep(POLL_S)
    stats = pstats.Stats(str(file), stream=console.file)
    stats.strip_dirs().sort_stats("tottime").print_stats(PROFILE_LINES)
