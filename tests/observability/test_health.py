"""How a worker tells that it is ready, and what is wrong."""

import asyncio
from functools import partial

import pytest

from mercuria.web.lookout import AWAY_AFTER_S, Lookout
from tests.observability.conftest import Talkative, funded, registered
from tests.web.people import until
from tests.web.wire import Reply, ask

STAGES = {"transactions", "ledger", "analytics"}
PARTS = {"wallets", "tables", "locks", "kafka", "redis", "http", "postgresql"} | STAGES


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
    lookout = Lookout()
    for at_s, answered in answers:
        lookout.note(answered, 1000 + at_s)
    assert lookout.is_kafka_away(1000 + now_s) == is_away


async def test_without_postgresql_a_worker_is_degraded_and_says_who_waits(talkative: Talkative) -> None:
    ready = partial(ask, talkative.stack.workers[0].port, "GET", "/health/ready")

    def is_ready(reply: Reply) -> bool:
        # What there is to do is known after the first look.
        document = reply.document
        return reply.status == 200 and document["status"] == "ready" and bool(document["lag_records"])

    well = await until(ready, is_ready)
    assert well.document["parts"].keys() >= PARTS and set(well.document["parts"].values()) == {"ready"}
    assert well.document["lag_records"].keys() == STAGES | {"wallets"}
    session = await registered(talkative, "health@example.org")
    wallet_id = await funded(talkative, session["access_token"], 5)
    postgres = talkative.stack.postgres
    await asyncio.to_thread(postgres.stop)
    try:
        path, token = f"/wallets/{wallet_id}/deposit", session["access_token"]
        assert (await talkative.ask("POST", path, {"amount": 1}, token=token)).status == 201

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
