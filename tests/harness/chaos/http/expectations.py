"""Expectations: what clients see while a part is away. Each returns what is wrong with an outcome, a sentence each."""

from collections.abc import Callable, Sequence

from mercuria.redis.leases import LIFE_S as LEASE_LIFE_S
from tests.harness.chaos.http.report import Outcome

NOTICED_S = LEASE_LIFE_S + 2.0
"""An outage of Redis that is shorter may pass without a pause in deciding."""
ONLY_POSTGRES = ("list", "login")
"""The requests that only PostgreSQL can answer."""
DATABASE_AWAY = "503 database_unavailable"
WALLETS_AWAY = "503 wallets_unavailable"

Expectation = Callable[[Outcome], list[str]]


def without_redis(for_s: float) -> Expectation:
    """Return what is expected when Redis is away for so long."""

    def unexpected(outcome: Outcome) -> list[str]:
        wrong = [
            *_only(outcome, ("list",), "200"),
            *_only(outcome, ("login",), "401 invalid_credentials"),
            *_only(outcome, ("wallet", "wallet, strongly"), "200", WALLETS_AWAY),
            *_only(outcome, ("transaction",), "200", "503 not_known_yet"),
        ]
        writes, reads = outcome.of("during", "order"), outcome.of("during", "wallet")
        if reads.count("200") < 0.9 * reads.all:
            wrong.append(f"Without Redis, reads of wallets were refused: {reads.answers}.")
        wrong += [
            f"Without Redis, a request for a change was answered with {name}."
            for name in writes.answers
            if name.startswith("5") and name != WALLETS_AWAY
        ]
        if for_s > NOTICED_S and not writes.count(WALLETS_AWAY):
            wrong.append("Without Redis, deciding did not pause.")
        if for_s > NOTICED_S and not any("Redis" in each for each in outcome.unready):
            wrong.append(f"Without Redis, workers are not ready because of {outcome.unready}.")
        return wrong

    return unexpected


def without_postgres(outcome: Outcome) -> list[str]:
    """Return what is unexpected when PostgreSQL was away."""
    wrong = [
        *_only(outcome, ("list",), "200", DATABASE_AWAY),
        *_only(outcome, ("login",), "401 invalid_credentials", DATABASE_AWAY),
        *_only(outcome, ("wallet", "wallet, strongly", "transaction", "ready"), "200"),
    ]
    writes = outcome.of("during", "order")
    if any(name.startswith("5") for name in writes.answers) or not writes.count("201"):
        wrong.append(f"Without PostgreSQL, requests for changes were answered with {writes.answers}.")
    wrong += [
        f"Without PostgreSQL, no request for {kind} was answered with {DATABASE_AWAY}."
        for kind in ONLY_POSTGRES
        if not outcome.of("during", kind).count(DATABASE_AWAY)
    ]
    return wrong


def without_worker(outcome: Outcome) -> list[str]:
    """Return what is unexpected when a worker was away, while another one was there."""
    reads = outcome.of("during", "wallet")
    return (
        [] if reads.count("200") else [f"Without a worker, reads of wallets were refused: {reads.answers}."]
    )


def _only(outcome: Outcome, kinds: Sequence[str], *names: str) -> list[str]:
    """Return which answers during the outage had other names."""
    return [
        f"A request for {kind} was answered with {name}, {count} times."
        for kind in kinds
        for name, count in outcome.of("during", kind).answers.items()
        if name not in names
    ]
