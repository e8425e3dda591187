"""`make soak`: load for a long time, with faults and under continuous verification, on a stack of its own."""

import asyncio
import signal
import sys
from collections.abc import Iterable
from contextlib import suppress

import click
import msgspec

from mercuria.cli.failures import EXIT_NO
from mercuria.cli.options import FiniteRange
from mercuria.cli.showing import show_json
from tests.harness.console import Echo, chosen_seed, echo_on, print_figures, progress_console
from tests.harness.options import run_options
from tests.harness.soak.run import Grown, Latency, Outcome, Soak, shown_ms
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
    """Keep a stack of its own busy while its parts are killed, verify all the while, and tell how it does.

    A line a minute; what is wrong is told at once. Ctrl-C ends the load early, and a second one also the audit that
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
            tell=echo,
        )
        outcome, ended_by = asyncio.run(_conduct(soaked, echo))
    _show(outcome, as_json)
    if not outcome.is_clean:
        sys.exit(EXIT_NO)
    sys.exit(0 if ended_by is None else 128 + ended_by)


async def _conduct(soak: Soak, echo: Echo) -> tuple[Outcome, int | None]:
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
        # `nohup` starts a program so that it does not hear of the terminal's end.
        if signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, interrupt, number)
    with suppress(asyncio.CancelledError):
        return await running, None
    return soak.outcome(), ended_by


def _show(outcome: Outcome, as_json: bool) -> None:
    if as_json:
        show_json(msgspec.to_builtins(outcome))
        return
    print_figures(_figures(outcome), outcome.violations + outcome.errors)


def _figures(outcome: Outcome) -> dict[str, object]:
    figures: dict[str, object] = {
        "seed": outcome.seed,
        "load": f"{outcome.load_s / 60:.1f} min",
        "commands": f"{outcome.commands:,}",
        "requests": f"{outcome.requests:,}",
        "refused or lost": f"{outcome.refused:,}, {outcome.refused_while_broken:,} of them while something was broken",
        "from command to event": _shown_latency(outcome.latency),
        "while nothing was broken": _shown_latency(outcome.calm),
        "longest pause in answers": f"{outcome.longest_pause_s:.1f} s",
        "faults": _counted(outcome.faults),
        "longest until all was answered again": _joined(
            f"{name}: {s:.1f} s" for name, s in outcome.recovery_s.items()
        ),
        "checks": _counted(outcome.checks),
        "behind at most, in records": _counted(outcome.lag_at_most),
    }
    figures |= {f"memory of {name}": _shown_growth(grown) for name, grown in outcome.memory.items()}
    figures |= {f"disk of {name}": _shown_growth(grown) for name, grown in outcome.disk.items()}
    if outcome.audit is not None and outcome.stages is not None:
        figures |= {
            "audited commands": f"{outcome.audit.commands:,}",
            "audited events": f"{outcome.audit.events:,}, and {outcome.audit.duplicate_events:,} again",
            "audited entries": f"{outcome.stages.entries:,}",
        }
    else:
        figures["audit"] = "it was not made"
    return figures | {"violations": outcome.violation_count, "errors": outcome.error_count}


def _counted(counts: dict[str, int]) -> str:
    return _joined(f"{name}: {count:,}" for name, count in counts.items())


def _joined(words: Iterable[str]) -> str:
    return ", ".join(words) or "none"


def _shown_latency(latency: Latency) -> str:
    return (
        f"p50 {shown_ms(latency.p50_ms)}, p99 {shown_ms(latency.p99_ms)}, at most {shown_ms(latency.max_ms)}"
        f" ({latency.count:,} commands)"
    )


def _shown_growth(grown: Grown) -> str:
    slope = "too short to tell" if grown.mib_an_hour is None else f"{grown.mib_an_hour:+,.1f} MiB an hour"
    starts = f", started {grown.starts} times" if grown.starts > 1 else ""
    return f"{slope}; {grown.last_mib:,.1f} MiB at last{starts}"
