"""`harness chaos http`: clients use a stack of its own over HTTP while its parts are frozen or killed."""

import asyncio
import sys

import click
import msgspec

from mercuria.cli.options import FiniteRange
from mercuria.cli.showing import show_json
from mercuria.embedded.stack import Stack
from tests.harness.chaos.http.duplicates import DuplicatesOutcome, DuplicatesRun, duplicates_figures
from tests.harness.chaos.http.outages import OUTAGES, run_outage
from tests.harness.chaos.http.report import Outcome, figures_of, print_answers
from tests.harness.chaos.http.run import HttpRun
from tests.harness.console import Echo, chosen_seed, echo_on, print_figures, progress_console
from tests.harness.options import run_options
from tests.harness.stacks import UNLIMITED_LOGINS, data_directory, fresh_stack

PARTS = click.Choice(["redis", "postgres", "worker"])


@click.command("http")
@click.option("--stop", type=PARTS, help="Freeze it with SIGSTOP for a while.")
@click.option("--kill", type=PARTS, help="Kill it with SIGKILL. Redis is emptied as well.")
@click.option(
    "--stop-s",
    type=FiniteRange(1),
    default=60,
    show_default=True,
    help="For how long a server, or a frozen worker, is away, in seconds.",
)
@click.option("--rate", type=click.IntRange(1), default=200, show_default=True, help="Requests a second.")
@click.option(
    "--keys",
    type=click.IntRange(2),
    default=2500,
    show_default=True,
    help="With --kill worker: how many requests, each of which is sent four times at the same moment.",
)
@click.option("--workers", type=click.IntRange(2, 64), default=2, show_default=True)
@run_options("Repeats the choices of an earlier run.")
def http_command(
    stop: str | None,
    kill: str | None,
    stop_s: float,
    rate: int,
    keys: int,
    workers: int,
    seed: int | None,
    data_dir: str | None,
    as_json: bool,
) -> None:
    """Let clients use a stack over HTTP while a part of it is away, and compare their answers with the log.

    One of --stop and --kill is needed. With --kill worker, each request is sent four times at once, and a worker is
    killed half-way. The exit code is 1 when anything is wrong.
    """
    if (stop is None) == (kill is None):
        raise click.UsageError("Name the part that is to be away, with either --stop or --kill.")
    echo = echo_on(progress_console(stderr=as_json))
    seed = chosen_seed(seed, echo)
    with (
        data_directory(data_dir) as directory,
        fresh_stack(directory, workers, echo, UNLIMITED_LOGINS) as stack,
    ):
        if kill == "worker":
            duplicates = DuplicatesRun(stack, seed=seed, keys=keys, echo=echo)
            outcome: Outcome | DuplicatesOutcome = asyncio.run(duplicates.run())
        else:
            outcome = asyncio.run(_run_outage(stack, stop, kill, stop_s, rate, seed, echo))
    _print(outcome, as_json)
    sys.exit(0 if outcome.is_clean else 1)


async def _run_outage(
    stack: Stack, stop: str | None, kill: str | None, stop_s: float, rate: int, seed: int, echo: Echo
) -> Outcome:
    outage = OUTAGES["stop" if stop else "kill", str(stop or kill)](stop_s)
    return await run_outage(HttpRun(stack, seed=seed, rate_per_s=rate, echo=echo), outage)


def _print(outcome: Outcome | DuplicatesOutcome, as_json: bool) -> None:
    if as_json:
        show_json(msgspec.to_builtins(outcome))
    elif isinstance(outcome, DuplicatesOutcome):
        print_figures(duplicates_figures(outcome), outcome.violations)
    else:
        print_answers(outcome)
        print_figures(figures_of(outcome), outcome.violations)
