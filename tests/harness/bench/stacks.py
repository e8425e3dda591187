"""The stacks that benchmarks measure: their own, apart from any installation, and with workers that may be profiled."""

import pstats
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

import click
import psutil
from rich.console import Console

from mercuria.cli.preparing import prepare
from mercuria.embedded.part import Part
from mercuria.embedded.ports import free_port
from mercuria.embedded.stack import WORKER_COMMAND, Stack
from mercuria.embedded.worker import Worker
from tests.harness.bench import profiled
from tests.harness.chaos import own_environ

POLL_S = 0.1
PROFILE_WITHIN_S = 30
PROFILE_LINES = 45


def bench_stack(
    directory: Path,
    workers: int,
    partitions: int,
    profile_file: Path | None,
    environ: Mapping[str, str] = MappingProxyType({}),
) -> Stack:
    """Return a stack to start; with a file, its workers can be profiled into it.

    Args:
        environ: settings of its workers.
    """
    profiled_worker = [sys.executable, "-P", profiled.__file__, str(profile_file), "worker"]
    return Stack(
        directory,
        workers=workers,
        partitions=partitions,
        # A port of its own: the default one may be wanted by a stack that serves people.
        http_port=free_port(),
        prepare=prepare,
        supervise=False,
        throwaway=True,
        worker_command=profiled_worker if profile_file else WORKER_COMMAND,
        environ=own_environ() | dict(environ),
    )


def pid_of(part: Part) -> int:
    """Return a part's process id, or say how it ended."""
    if part.pid is None:
        raise click.ClickException(part.with_log(f"{part.title} ended ({part.ending()})"))
    return part.pid


@contextmanager
def profiling(worker: Worker, file: Path, console: Console) -> Iterator[None]:
    """Print what a worker spends its time on in the block."""
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
