"""`make chaos`: breaks a stack of its own under load, and checks that nothing is lost or doubled."""

import asyncio
import logging
import os
import secrets
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from mercuria.cli.options import FiniteRange
from mercuria.cli.preparing import prepare
from mercuria.cli.printable import printable
from mercuria.cli.showing import show_json
from mercuria.embedded.errors import StackError
from mercuria.embedded.ports import free_port
from mercuria.embedded.stack import Stack
from tests.harness.chaos.stages import StagesAudit, audit_stages, kill_all_kinds
from tests.harness.chaos.trial import Faults, Outcome, Trial, kill_workers, stop_kafka

PARTITIONS = 8
KEPT_VARIABLES = ("MERCURIA_CACHE_DIR", "MERCURIA_LOG_LEVEL")
"""Of an installation's settings, these alone hold for the trial: it never touches an installation that exists."""

Tell = Callable[[str], None]
"""Hears of what happens, a sentence at a time."""


Options = Callable[[Callable[..., None]], Callable[..., None]]


DIRECTORY = f"{__name__}.directory"
"""Under which click's context has the directory that is named."""


def _name_directory(context: click.Context, _: click.Parameter, directory: str | None) -> None:
    context.meta[DIRECTORY] = directory


def trial_options(seed_help: str) -> Options:
    """Return what adds the options of all that breaks a stack of its own."""

    def add(command: Callable[..., None]) -> Callable[..., None]:
        for option in (
            click.option("--json", "as_json", is_flag=True, help="Print JSON."),
            click.option(
                "--data-dir",
                type=click.Path(),
                expose_value=False,
                callback=_name_directory,
                help="A directory that is empty or does not exist, and is kept. Default: a temporary one.",
            ),
            click.option("--seed", type=int, help=seed_help),
        ):
            command = option(command)
        return command

    return add


def options(command: Callable[..., None]) -> Callable[..., None]:
    """Add what the trials on the log alone have in common."""
    for option in (
        trial_options("Repeats the commands and moments of an earlier run."),
        click.option(
            "--rate", type=click.IntRange(1), default=1500, show_default=True, help="Commands a second."
        ),
        click.option(
            "--commands", type=click.IntRange(1), default=60_000, show_default=True, help="At least so many."
        ),
        click.option("--workers", type=click.IntRange(1, 64), default=2, show_default=True),
    ):
        command = option(command)
    return command


@click.group()
def chaos() -> None:
    """Break a stack of its own under load, and audit the log afterwards."""


@chaos.command("kill-workers")
@click.option("--kills", type=click.IntRange(1), default=20, show_default=True, help="How often.")
@options
def kill_workers_command(kills: int, **common: Any) -> None:
    """Kill workers with SIGKILL at random moments."""
    _conduct(kill_workers(kills), **common)


@chaos.command("kafka")
@click.option("--stop-s", type=FiniteRange(0.1), default=30, show_default=True, help="How long, in seconds.")
@options
def kafka_command(stop_s: float, **common: Any) -> None:
    """Freeze Kafka with SIGSTOP for a while, then kill it with SIGKILL and start it again."""
    _conduct(stop_kafka(stop_s), **common)


@chaos.command("stages")
@click.option("--kills", type=click.IntRange(1), default=20, show_default=True, help="How often.")
@options
def stages_command(kills: int, **common: Any) -> None:
    """Kill workers, PostgreSQL and Kafka with SIGKILL at random moments."""
    _conduct(kill_all_kinds(kills), **common)


def _conduct(
    faults: Faults,
    workers: int,
    commands: int,
    rate: int,
    seed: int | None,
    as_json: bool,
) -> None:
    console = progress_console(as_json)
    tell = teller(console)
    seed = told_seed(seed, tell)
    with trial_directory() as directory, fresh_stack(directory, workers, tell) as stack:
        trial = Trial(stack, seed=seed, commands=commands, rate_per_s=rate, tell=tell)
        outcome, stages = asyncio.run(_run(trial, faults, console))
    _show(outcome, stages, as_json)
    sys.exit(0 if outcome.is_clean and not stages.violation_count else 1)


def progress_console(as_json: bool) -> Console:
    """Return where it is told what happens: beside what is printed in the end, where that is JSON."""
    # What its clients say of a Kafka that was killed on purpose.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    return Console(stderr=as_json, highlight=False, markup=False, emoji=False, soft_wrap=True)


def teller(console: Console) -> Tell:
    """Return what tells sentences, one in a line."""

    def tell(sentence: str) -> None:
        # What follows in other lines is the log of a part that was killed on purpose.
        console.print(printable(sentence.split("\n")[0].partition("; the last lines of")[0]))

    return tell


def told_seed(seed: int | None, tell: Tell) -> int:
    """Return a seed, a new one where none was given, and say it."""
    chosen = secrets.randbelow(2**32) if seed is None else seed
    tell(f"Seed {chosen}.")
    return chosen


def own_environ() -> dict[str, str]:
    """Return the environment without an installation's settings: this stack is none."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("MERCURIA_") or name in KEPT_VARIABLES
    }


def fresh_stack(
    directory: Path,
    workers: int,
    tell: Tell,
    settings: Mapping[str, str] = MappingProxyType({}),
    **more: Any,
) -> Stack:
    """Return a stack for a trial: of its own servers, on free ports, in a new directory, with some settings."""
    return Stack(
        directory,
        workers=workers,
        http_port=free_port(),
        partitions=PARTITIONS,
        prepare=prepare,
        throwaway=True,
        on_progress=tell,
        environ=own_environ() | dict(settings),
        **more,
    )


async def _run(trial: Trial, faults: Faults, console: Console) -> tuple[Outcome, StagesAudit]:
    """Run a trial, and show how far it is; then check what the stages made of it."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("answered", total=trial.commands)
        running = asyncio.create_task(trial.run(faults))
        while not running.done():
            progress.update(
                bar, completed=trial.waiting.answered, total=max(trial.commands, trial.waiting.sent)
            )
            await asyncio.wait([running], timeout=0.2)
    return running.result(), await audit_stages(trial.stack)


@contextmanager
def trial_directory() -> Iterator[Path]:
    """Yield a fresh directory: the one that is named, or one that is removed afterwards."""
    named = click.get_current_context().meta.get(DIRECTORY)
    if named is None:
        with tempfile.TemporaryDirectory(prefix="mercuria-chaos-", ignore_cleanup_errors=True) as temporary:
            yield Path(temporary)
        return
    directory = Path(named)
    if directory.exists() and any(directory.iterdir()):
        raise StackError(f"{directory} is not empty; name a directory that does not exist with --data-dir.")
    yield directory


def _show(outcome: Outcome, stages: StagesAudit, as_json: bool) -> None:
    figures = {
        "commands": outcome.audit.commands,
        "events": outcome.audit.events,
        "duplicate events": outcome.audit.duplicate_events,
        "rejections": outcome.audit.rejections,
        "transfers": outcome.audit.transfers,
        "refunds": outcome.audit.refunds,
        "faults": outcome.faults,
        "longest pause in answers": f"{outcome.longest_pause_s:.1f} s",
        "load": f"{outcome.load_s:.1f} s",
        "audit": f"{outcome.audit_s:.1f} s",
        "completed transactions": stages.completed,
        "failed transactions": stages.failed,
        "entries in the ledger": stages.entries,
        **{f"events that came again on {topic}": count for topic, count in stages.duplicates.items()},
        "violations": outcome.audit.violation_count + stages.violation_count,
    }
    if as_json:
        found = {**msgspec.to_builtins(outcome), "stages": msgspec.to_builtins(stages)}
        show_json(found)
        return
    show_figures(figures, outcome.audit.violations + stages.violations)


def show_figures(figures: Mapping[str, object], sentences: Sequence[str]) -> None:
    """Print figures in a table, and below it sentences."""
    table = Table.grid(padding=(0, 2))
    for name, value in figures.items():
        table.add_row(name, str(value))
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    console.print(table)
    for sentence in sentences:
        console.print(printable(sentence))


from tests.harness.chaos import http  # noqa: E402  registers itself with the group above

__all__ = [
    "PARTITIONS",
    "Tell",
    "chaos",
    "fresh_stack",
    "http",
    "own_environ",
    "progress_console",
    "show_figures",
    "teller",
    "told_seed",
    "trial_directory",
    "trial_options",
]
