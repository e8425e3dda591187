"""Outages: what is stopped, killed and emptied while people use a stack over HTTP, and what they have to see of it."""

import asyncio
import shutil
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from mercuria.embedded.part import Part
from mercuria.embedded.stack import Stack
from mercuria.redis.client import connect
from mercuria.redis.leases import LIFE_S as LOCK_LIFE_S
from tests.harness.chaos.siege import Faults, Outcome, Siege

BETWEEN_S = 2.0
"""For how long everything has to be answered between two strikes."""
NOTICED_S = LOCK_LIFE_S + 2.0
"""An outage of Redis that is shorter may pass without a pause in deciding."""
LISTS = ("list", "login")
"""What only PostgreSQL knows."""
DATABASE_AWAY = "503 database_unavailable"
WALLETS_AWAY = "503 wallets_unavailable"

Expectation = Callable[[Outcome], list[str]]


class Outage(NamedTuple):
    """What happens, and what is wrong with an outcome that is not as it should be then."""

    faults: Faults
    faults_of: Expectation


# What happens.


def stop(choose: Callable[[Stack], Part], for_s: float) -> Faults:
    """Return faults that freeze a server for a while."""

    async def strike(siege: Siege) -> None:
        await freeze(siege, choose(siege.stack), for_s)

    return strike


def stop_worker(for_s: float) -> Faults:
    """Return faults that freeze one of the workers for a while."""

    async def strike(siege: Siege) -> None:
        siege.lose_answers()
        await freeze(siege, siege.random.choice(siege.stack.workers), for_s)

    return strike


def kill_postgres(for_s: float) -> Faults:
    """Return faults that kill PostgreSQL, and start it again after a while."""

    async def strike(siege: Siege) -> None:
        await kill(siege, siege.stack.postgres, for_s)

    return strike


def kill_redis(for_s: float) -> Faults:
    """Return faults that empty Redis under load, and then kill it, and start it again empty after a while."""

    async def strike(siege: Siege) -> None:
        await flush(siege)
        await siege.calm(BETWEEN_S)
        await kill(siege, siege.stack.redis, for_s, loses_data=True)

    return strike


async def freeze(siege: Siege, part: Part, for_s: float) -> None:
    """Freeze a part, and let it go on after a while."""
    async with siege.outage(f"{part.title} is frozen for {for_s:.0f} seconds."):
        part.suspend()
        try:
            await asyncio.sleep(for_s)
        finally:
            part.resume()
    siege.tell(f"{part.title} goes on.")


async def flush(siege: Siege) -> None:
    """Empty Redis while it is used."""
    redis = connect(siege.stack.env["MERCURIA_REDIS"])
    async with siege.outage("Redis is emptied."):
        await redis.flushall()
    await redis.aclose()


async def kill(siege: Siege, part: Part, for_s: float, *, loses_data: bool = False) -> None:
    """Kill a server, and start it again after a while, with its data or without."""
    async with siege.outage(f"{part.title} is killed, and starts again after {for_s:.0f} seconds."):
        began_s = time.monotonic()
        part.supervised = False
        await asyncio.to_thread(part.kill)
        if loses_data:
            shutil.rmtree(part.directory.subdirectory(part.name))
        await asyncio.sleep(began_s + for_s - time.monotonic())
        await asyncio.to_thread(part.start)
        part.supervised = True
    siege.tell(f"{part.title} is there again.")


# What people have to see.


def without_redis(for_s: float) -> Expectation:
    """Return what an outcome has to be when Redis was away for so long."""

    def faults_of(outcome: Outcome) -> list[str]:
        faults = [
            *_only(outcome, ("list",), "200"),
            *_only(outcome, ("login",), "401 invalid_credentials"),
            *_only(outcome, ("wallet", "wallet, strongly"), "200", WALLETS_AWAY),
            *_only(outcome, ("transaction",), "200", "503 not_known_yet"),
        ]
        orders, readings = outcome.of("during", "order"), outcome.of("during", "wallet")
        if readings.count("200") < 0.9 * readings.all:
            faults.append(f"Without Redis, wallets were not shown: {readings.answers}.")
        faults += [
            f"Without Redis, an order was answered with {name}."
            for name in orders.answers
            if name.startswith("5") and name != WALLETS_AWAY
        ]
        if for_s > NOTICED_S and not orders.count(WALLETS_AWAY):
            faults.append("Without Redis, deciding did not pause.")
        if for_s > NOTICED_S and not any("Redis" in each for each in outcome.unready):
            faults.append(f"Without Redis, workers say that they are not ready because of {outcome.unready}.")
        return faults

    return faults_of


def without_postgres(outcome: Outcome) -> list[str]:
    """Return what is wrong with an outcome when PostgreSQL was away."""
    faults = [
        *_only(outcome, ("list",), "200", DATABASE_AWAY),
        *_only(outcome, ("login",), "401 invalid_credentials", DATABASE_AWAY),
        *_only(outcome, ("wallet", "wallet, strongly", "transaction", "ready"), "200"),
    ]
    orders = outcome.of("during", "order")
    if any(name.startswith("5") for name in orders.answers) or not orders.count("201"):
        faults.append(f"Without PostgreSQL, orders were answered with {orders.answers}.")
    faults += [
        f"Without PostgreSQL, a request for {what} was never told so."
        for what in LISTS
        if not outcome.of("during", what).count(DATABASE_AWAY)
    ]
    return faults


def without_worker(outcome: Outcome) -> list[str]:
    """Return what is wrong with an outcome when a worker was away, while another one was there."""
    readings = outcome.of("during", "wallet")
    return [] if readings.count("200") else [f"Without a worker, wallets were not shown: {readings.answers}."]


def _only(outcome: Outcome, what: Sequence[str], *names: str) -> list[str]:
    """Return which answers during the outage had other names."""
    return [
        f"A request for {each} was answered with {name}, {count} times."
        for each in what
        for name, count in outcome.of("during", each).answers.items()
        if name not in names
    ]


OUTAGES: dict[tuple[str, str], Callable[[float], Outage]] = {
    ("stop", "redis"): lambda for_s: Outage(stop(lambda stack: stack.redis, for_s), without_redis(for_s)),
    ("kill", "redis"): lambda for_s: Outage(kill_redis(for_s), without_redis(for_s)),
    ("stop", "postgres"): lambda for_s: Outage(stop(lambda stack: stack.postgres, for_s), without_postgres),
    ("kill", "postgres"): lambda for_s: Outage(kill_postgres(for_s), without_postgres),
    ("stop", "worker"): lambda for_s: Outage(stop_worker(for_s), without_worker),
}
"""By what is done, and to what."""


async def besiege(siege: Siege, outage: Outage) -> Outcome:
    """Let an outage happen to a stack that is used, and add to the outcome's violations what people should not see."""
    outcome = await siege.run(outage.faults)
    faults = outage.faults_of(outcome)
    outcome.violations += faults
    outcome.violation_count += len(faults)
    return outcome


def shown(answers: dict[str, int]) -> str:
    """Return answers in one line, the most frequent first."""
    ordered = sorted(answers.items(), key=lambda item: -item[1])
    return ", ".join(f"{count} × {name}" for name, count in ordered)  # noqa: RUF001  a multiplication sign
