"""`harness chaos kill-workers`, `kafka` and `stages`: faults while commands are sent to Kafka."""

import asyncio
import sys
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from mercuria.cli.options import FiniteRange
from mercuria.cli.showing import show_json
from tests.harness.audit.projections import ProjectionsAudit, audit_projections
from tests.harness.chaos.kafka.faults import kill_all_kinds, kill_workers, stop_kafka
from tests.harness.chaos.kafka.run import Faults, KafkaRun, Outcome
from tests.harness.console import chosen_seed, echo_on, print_figures, progress_console
from tests.harness.options import all_of, run_options
from tests.harness.stacks import data_directory, fresh_stack

PROGRESS_EVERY_S = 0.2

kills_option = click.option(
    "--kills", type=click.IntRange(1), default=20, show_default=True, help="How often."
)
load_options = all_of(
    run_options("Repeats the commands and moments of an earlier run."),
    click.option(
        "--rate", type=click.IntRange(1), default=1500, show_default=True, help="Commands a second."
    ),
    click.option(
        "--commands", type=click.IntRange(1), default=60_000, show_default=True, help="At least so many."
    ),
    click.option("--workers", type=click.IntRange(1, 64), default=2, show_default=True),
)


@click.command("kill-workers")
@kills_option
@load_options
def kill_workers_command(kills: int, **common: Any) -> None:
    """Kill workers with SIGKILL at random moments."""
    _run_command(kill_workers(kills), **common)


@click.command("kafka")
@click.option("--stop-s", type=FiniteRange(0.1), default=30, show_default=True, help="How long, in seconds.")
@load_options
def kafka_command(stop_s: float, **common: Any) -> None:
    """Freeze Kafka with SIGSTOP for a while, then kill it with SIGKILL and start it again."""
    _run_command(stop_kafka(stop_s), **common)


@click.command("stages")
@kills_option
@load_options
def stages_command(kills: int, **common: Any) -> None:
    """Kill workers, PostgreSQL and Kafka with SIGKILL at random moments."""
    _run_command(kill_all_kinds(kills), **common)


def _run_command(
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
        run = KafkaRun(stack, seed=seed, commands=commands, rate_per_s=rate, echo=echo)
        outcome, projections = asyncio.run(_run(run, faults, console))
    _print(outcome, projections, as_json)
    sys.exit(0 if outcome.is_clean and not projections.violation_count else 1)


async def _run(run: KafkaRun, faults: Faults, console: Console) -> tuple[Outcome, ProjectionsAudit]:
    """Make a run behind a progress bar, and audit the projections afterwards."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("answered", total=run.commands)
        running = asyncio.create_task(run.run(faults))
        while not running.done():
            total = max(run.commands, run.pending.sent)
            progress.update(bar, completed=run.pending.answered, total=total)
            await asyncio.wait([running], timeout=PROGRESS_EVERY_S)
    return running.result(), await audit_projections(run.stack)


def _print(outcome: Outcome, projections: ProjectionsAudit, as_json: bool) -> None:
    if as_json:
        show_json({**msgspec.to_builtins(outcome), "stages": msgspec.to_builtins(projections)})
        return
    print_figures(_figures(outcome, projections), outcome.audit.violations + projections.violations)


def _figures(outcome: Outcome, projections: ProjectionsAudit) -> dict[str, object]:
    duplicates = projections.duplicates.items()
    return {
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
        "completed transactions": projections.completed,
        "failed transactions": projections.failed,
        "entries in the ledger": projections.entries,
        **{f"events that came again on {topic}": count for topic, count in duplicates},
        "violations": outcome.audit.violation_count + projections.violation_count,
    }
