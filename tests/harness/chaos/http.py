"""`harness chaos http`: people use a stack of its own over HTTP while its parts are stopped or killed."""

import asyncio
import sys
from typing import Any

import click
import msgspec

from mercuria.cli.options import FiniteRange
from mercuria.cli.showing import show_json
from mercuria.embedded.stack import Stack
from tests.harness.chaos.copies import Copies
from tests.harness.chaos.copies import Outcome as CopiesOutcome
from tests.harness.chaos.outages import OUTAGES, besiege, shown
from tests.harness.chaos.siege import PHASES, Outcome, Siege
from tests.harness.console import Echo, chosen_seed, echo_on, plain_console, print_figures, progress_console
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
    """Let people use a stack over HTTP while a part of it is away, and compare what they are answered with the log.

    One of --stop and --kill is needed. With --kill worker, each request is sent four times at once, and a worker is
    killed half-way. The exit code is 1 when anything is wrong.
    """
    if (stop is None) == (kill is None):
        raise click.UsageError("Say what is to be away, with either --stop or --kill.")
    echo = echo_on(progress_console(stderr=as_json))
    seed = chosen_seed(seed, echo)
    with (
        data_directory(data_dir) as directory,
        fresh_stack(directory, workers, echo, UNLIMITED_LOGINS) as stack,
    ):
        if kill == "worker":
            running: Any = Copies(stack, seed=seed, keys=keys, tell=echo).run()
        else:
            running = _besiege(stack, stop, kill, stop_s, rate, seed, echo)
        outcome = asyncio.run(running)
    _show(outcome, as_json)
    sys.exit(0 if outcome.is_clean else 1)


async def _besiege(
    stack: Stack, stop: str | None, kill: str | None, stop_s: float, rate: int, seed: int, echo: Echo
) -> Outcome:
    outage = OUTAGES["stop" if stop else "kill", str(stop or kill)](stop_s)
    return await besiege(Siege(stack, seed=seed, rate_per_s=rate, tell=echo), outage)


def _show(outcome: Outcome | CopiesOutcome, as_json: bool) -> None:
    if as_json:
        show_json(msgspec.to_builtins(outcome))
        return
    if isinstance(outcome, Outcome):
        _show_answers(outcome)
    print_figures(_figures(outcome), outcome.violations)


def _show_answers(outcome: Outcome) -> None:
    console = plain_console()
    for phase in PHASES:
        console.print(f"{phase} the outage")
        for what, asked in sorted(outcome.asked[phase].items()):
            console.print(f"  {what}: {shown(asked.answers)}; the slowest in {asked.slowest_s:.2f} s")


def _figures(outcome: Outcome | CopiesOutcome) -> dict[str, object]:
    figures: dict[str, object] = {
        "commands": outcome.audit.commands,
        "events": outcome.audit.events,
        "duplicate events": outcome.audit.duplicate_events,
    }
    if isinstance(outcome, Outcome):
        oldest_s = max(outcome.oldest_shown_s.values(), default=0.0)
        figures |= {
            "orders": outcome.orders,
            "everything answered again after": f"{outcome.recovered_after_s:.1f} s",
            "the oldest balance that was shown": f"{oldest_s:.1f} s",
            "not ready because": "; ".join(outcome.unready) or "-",
        }
    else:
        figures |= {
            "keys": outcome.keys,
            "effects": outcome.effects,
            "answers": shown(outcome.answers),
            "said to be repeated": outcome.replayed,
            "the slowest answer": f"{outcome.slowest_s:.1f} s",
            "took": f"{outcome.took_s:.1f} s",
        }
    return figures | {"violations": outcome.violation_count}
