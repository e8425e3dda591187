"""`make chaos`: breaks a stack of its own under load, and checks that nothing is lost or doubled."""

import asyncio
import sys
from collections.abc import Callable
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from mercuria.cli.options import FiniteRange
from mercuria.cli.showing import show_json
from tests.harness.chaos.stages import StagesAudit, audit_stages, kill_all_kinds
from tests.harness.chaos.trial import Faults, Outcome, Trial, kill_workers, stop_kafka
from tests.harness.console import chosen_seed, echo_on, print_figures, progress_console
from tests.harness.stacks import data_directory, fresh_stack

Options = Callable[[Callable[..., None]], Callable[..., None]]


def trial_options(seed_help: str) -> Options:
    """Return what adds the options of all that breaks a stack of its own."""

    def add(command: Callable[..., None]) -> Callable[..., None]:
        for option in (
            click.option("--json", "as_json", is_flag=True, help="Print JSON."),
            click.option(
                "--data-dir",
                type=click.Path(),
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
    data_dir: str | None,
    as_json: bool,
) -> None:
    console = progress_console(stderr=as_json)
    echo = echo_on(console)
    seed = chosen_seed(seed, echo)
    with data_directory(data_dir) as directory, fresh_stack(directory, workers, echo) as stack:
        trial = Trial(stack, seed=seed, commands=commands, rate_per_s=rate, tell=echo)
        outcome, stages = asyncio.run(_run(trial, faults, console))
    _show(outcome, stages, as_json)
    sys.exit(0 if outcome.is_clean and not stages.violation_count else 1)


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
    print_figures(figures, outcome.audit.violations + stages.violations)


from tests.harness.chaos import http  # noqa: E402  registers itself with the group above

__all__ = ["chaos", "http", "trial_options"]
