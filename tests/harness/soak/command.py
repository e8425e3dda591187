"""`make soak`: load for a long time, with faults and under continuous verification, on a stack of its own."""

import asyncio
import signal
import sys
from contextlib import suppress

import click
import msgspec

from mercuria.cli.failures import EXIT_NO
from mercuria.cli.options import FiniteRange
from mercuria.cli.showing import show_json
from tests.harness.console import Echo, chosen_seed, echo_on, print_figures, progress_console
from tests.harness.options import run_options
from tests.harness.soak.report import Outcome, figures_of
from tests.harness.soak.run import Soak
from tests.harness.stacks import UNLIMITED_LOGINS, data_directory, fresh_stack

LONGEST_MINUTES = 23 * 60
"""Access tokens are valid for a day."""


@click.command()
@click.option(
    "--minutes",
    type=FiniteRange(0, LONGEST_MINUTES, min_open=True),
    default=60,
    show_default=True,
    help="How long.",
)
@click.option(
    "--rate", type=FiniteRange(1), default=200, show_default=True, help="Commands a second, by Kafka."
)
@click.option("--http-rate", type=FiniteRange(1), default=20, show_default=True, help="Requests a second.")
@click.option(
    "--every-s",
    type=FiniteRange(1),
    default=90,
    show_default=True,
    help="How long everything works between two faults, give or take a fifth.",
)
@click.option(
    "--faults/--no-faults", default=True, show_default=True, help="Whether parts are killed and frozen."
)
@click.option(
    "--check-every-s",
    type=FiniteRange(1),
    default=60,
    show_default=True,
    help="From one run of `ledger verify` and `reconcile` to the next.",
)
@click.option("--workers", type=click.IntRange(2, 64), default=2, show_default=True)
@run_options("Repeats the commands and faults of an earlier run.")
def soak(
    minutes: float,
    rate: float,
    http_rate: float,
    every_s: float,
    faults: bool,
    check_every_s: float,
    workers: int,
    seed: int | None,
    data_dir: str | None,
    as_json: bool,
) -> None:
    """Keep a stack of its own busy while its parts are killed, verify all the while, and report each minute.

    Violations are printed at once. Ctrl-C ends the load early, and a second one also the audit that
    follows. The exit code is 1 where anything is wrong.
    """
    echo = echo_on(progress_console(stderr=as_json))
    seed = chosen_seed(seed, echo)
    with (
        data_directory(data_dir) as directory,
        fresh_stack(directory, workers, echo, UNLIMITED_LOGINS) as stack,
    ):
        soaked = Soak(
            stack,
            seed=seed,
            minutes=minutes,
            rate_per_s=rate,
            requests_per_s=http_rate,
            every_s=every_s if faults else None,
            check_every_s=check_every_s,
            echo=echo,
        )
        outcome, ended_by = asyncio.run(_run(soaked, echo))
    _print(outcome, as_json)
    if not outcome.is_clean:
        sys.exit(EXIT_NO)
    sys.exit(0 if ended_by is None else 128 + ended_by)


async def _run(soak: Soak, echo: Echo) -> tuple[Outcome, int | None]:
    """Run a soak; return its figures, and the signal that ended it before its audit was made."""
    running = asyncio.create_task(soak.run())
    interrupts = 0
    ended_by: int | None = None

    def interrupt(number: int) -> None:
        nonlocal interrupts, ended_by
        interrupts += 1
        if interrupts == 1:
            echo("The load ends early, and what was done is audited; Ctrl-C once more ends that, too.")
            soak.end()
        else:
            ended_by = number
            running.cancel()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # `nohup` starts a program with SIGHUP ignored.
        if signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, interrupt, number)
    with suppress(asyncio.CancelledError):
        return await running, None
    return soak.outcome(), ended_by


def _print(outcome: Outcome, as_json: bool) -> None:
    if as_json:
        show_json(msgspec.to_builtins(outcome))
        return
    print_figures(figures_of(outcome), outcome.violations + outcome.errors)
