"""How a worker tells that it is ready, and what is wrong."""

import asyncio
from functools import partial
from uuid import uuid4

import pytest

from mercuria.auth.tokens import Caller, Tokens
from mercuria.config import Settings
from mercuria.embedded.stack import Stack
from mercuria.projections.registry import PROJECTIONS
from mercuria.web.health_monitor import AWAY_AFTER_S, HealthMonitor
from tests.observability.conftest import TracedStack, funded, registered
from tests.web.api_client import until
from tests.web.wire import Reply, ask

STAGES = {"wallets", *PROJECTIONS}
PARTS = {"tables", "locks", "kafka", "redis", "http", "postgresql"} | STAGES


@pytest.mark.parametrize(
    ("answers", "now_s", "is_away"),
    [
        ([], 100, False),
        ([(0, True)], AWAY_AFTER_S + 30, False),
        ([(0, True), (2, False)], AWAY_AFTER_S, False),
        ([(0, True), (2, False)], AWAY_AFTER_S + 0.1, True),
        ([(0, True), (9, False), (11, True)], 12, False),
        ([(50, False)], 50 + AWAY_AFTER_S, False),
        ([(50, False)], 50 + AWAY_AFTER_S + 0.1, True),
    ],
)
def test_kafka_is_away_when_it_was_asked_and_has_not_answered_for_long(
    answers: list[tuple[float, bool]], now_s: float, is_away: bool
) -> None:
    monitor = HealthMonitor()
    for at_s, answered in answers:
        monitor.note(answered, 1000 + at_s)
    assert monitor.is_kafka_away(1000 + now_s) == is_away


BEHIND_A_PROXY = (
    "X-Forwarded-For: 198.51.100.7",
    "X-Forwarded-For: 127.0.0.1",
    "x-forwarded-for: unknown",
    "Forwarded: for=198.51.100.7",
    "Via: 1.1 proxy",
    "X-Real-IP: 198.51.100.7",
)


@pytest.mark.parametrize("header", BEHIND_A_PROXY)
async def test_through_a_proxy_the_port_for_clients_tells_nothing_of_the_worker(
    traced: TracedStack, header: str
) -> None:
    port = traced.stack.workers[0].port
    assert port == int(traced.stack.env["MERCURIA_HTTP_PORT"]), "it has one port for all"
    ready = await ask(port, "GET", "/health/ready", header)
    assert (ready.status, ready.document) == (200, {"ready": True, "status": ready.document["status"]})
    metrics = await ask(port, "GET", "/metrics", header)
    assert (metrics.status, metrics.code) == (404, "not_found")


async def test_from_the_machine_itself_or_with_an_operators_token_it_tells_all(traced: TracedStack) -> None:
    port = traced.stack.workers[0].port
    assert (await ask(port, "GET", "/health/ready")).document.keys() >= {"reasons", "parts", "lag_records"}
    assert (await ask(port, "GET", "/metrics")).status == 200
    user = await registered(traced, "nobody-special@example.org")
    proxied = ("X-Forwarded-For: 198.51.100.7", f"Authorization: Bearer {user['access_token']}")
    assert "parts" not in (await ask(port, "GET", "/health/ready", *proxied)).document
    operator = Tokens(settings_of(traced.stack)).issue(Caller(uuid4(), "operator"))
    proxied = ("X-Forwarded-For: 198.51.100.7", f"Authorization: Bearer {operator}")
    assert "parts" in (await ask(port, "GET", "/health/ready", *proxied)).document
    assert (await ask(port, "GET", "/metrics", *proxied)).status == 200


def settings_of(stack: Stack) -> Settings:
    """Return the settings of a stack's workers."""
    return Settings.from_env({"MERCURIA_DATA_DIR": str(stack.directory.path)})


async def test_without_postgresql_a_worker_is_degraded_and_says_who_waits(traced: TracedStack) -> None:
    ready = partial(ask, traced.stack.workers[0].port, "GET", "/health/ready")

    def is_ready(reply: Reply) -> bool:
        # What there is to do is known after the first look.
        document = reply.document
        return reply.status == 200 and document["status"] == "ready" and bool(document["lag_records"])

    well = await until(ready, is_ready)
    assert well.document["parts"].keys() >= PARTS and set(well.document["parts"].values()) == {"ready"}
    assert well.document["lag_records"].keys() == STAGES
    session = await registered(traced, "health@example.org")
    wallet_id = await funded(traced, session["access_token"], 5)
    postgres = traced.stack.postgres
    await asyncio.to_thread(postgres.stop)
    try:
        path, token = f"/wallets/{wallet_id}/deposit", session["access_token"]
        assert (await traced.ask("POST", path, {"amount": 1}, token=token)).status == 201

        def is_waiting(reply: Reply) -> bool:
            return bool(reply.document["lag_records"]["transactions"]) and reply.document["parts"][
                "transactions"
            ].startswith("it has waited for PostgreSQL for ")

        ill = await until(ready, is_waiting)
        assert (ill.status, ill.document["status"], ill.document["reasons"]) == (200, "degraded", [])
        assert ill.document["ready"] is True and ill.document["parts"]["postgresql"] == "away"
        assert ill.document["parts"]["wallets"] == "ready"
    finally:
        await asyncio.to_thread(postgres.start)
    await until(ready, is_ready)
