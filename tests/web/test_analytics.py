"""The figures of days and users over HTTP: exact, to whom they concern, and also while PostgreSQL is away."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from redis.asyncio import Redis

from mercuria.embedded.stack import Stack
from tests.web.api_client import ApiClient, ApiClients, refusal, until
from tests.web.wire import Reply

NOTHING = {"count": 0, "volume": 0}


async def snapshot(person: ApiClient, of: ApiClient, movements: int) -> dict[str, Any]:
    """Return a user's snapshot, once so many movements are counted."""

    def is_counted(reply: Reply) -> bool:
        kinds = ("deposits", "withdrawals", "transfers_in", "transfers_out")
        return (
            sum(each[kind]["count"] for each in reply.document["currencies"] for kind in kinds) == movements
        )

    reply = await until(lambda: person.get(f"/metrics/users/{of.id}", worker=1), is_counted)
    assert reply.status == 200
    return reply.document


async def day(operator: ApiClient, currency: str) -> dict[str, Any]:
    """Return today's figures of a currency."""
    reply = await operator.get(f"/metrics/daily?currency={currency}&from={datetime.now(UTC).date()}")
    assert reply.status == 200, reply
    nothing = {
        "date": str(datetime.now(UTC).date()),
        "currency": currency,
        "deposits": NOTHING,
        "withdrawals": NOTHING,
        "transfers": NOTHING,
        "active_wallets": 0,
    }
    found: list[dict[str, Any]] = reply.document["data"]
    return found[0] if found else nothing


async def test_what_moves_is_counted_for_users_and_days(
    zoe: ApiClient, max_: ApiClient, operator: ApiClient
) -> None:
    before = await day(operator, "ISK")
    zoes, other, theirs = (
        await zoe.wallet(currency="ISK"),
        await zoe.wallet(currency="ISK"),
        await max_.wallet(currency="ISK"),
    )
    dollars = await zoe.wallet(5, currency="USD")
    await zoe.deposit(zoes, 1000)
    await zoe.withdraw(zoes, 100)
    await zoe.transfer(zoes, theirs, 250)
    await zoe.transfer(zoes, other, 50)
    assert (await zoe.transfer(zoes, dollars, 50)).status == 422
    assert (await zoe.withdraw(zoes, 5000)).status == 422
    kroner, dollar = (await snapshot(zoe, zoe, 6))["currencies"]
    last = kroner.pop("last_activity_at")
    assert kroner == {
        "currency": "ISK",
        "balance": 650,
        "deposits": {"count": 1, "volume": 1000},
        "withdrawals": {"count": 1, "volume": 100},
        "transfers_in": {"count": 1, "volume": 50},
        "transfers_out": {"count": 2, "volume": 300},
        "volume_in": 1050,
        "volume_out": 400,
    }
    assert (dollar["currency"], dollar["balance"]) == ("USD", 5)
    found = await snapshot(operator, max_, 1)
    assert (found["user_id"], found["currencies"][0]["balance"]) == (str(max_.id), 250)
    assert found["last_activity_at"] <= last
    after = await day(operator, "ISK")
    assert {
        kind: after[kind]["count"] - before[kind]["count"]
        for kind in ("deposits", "withdrawals", "transfers")
    } == {
        "deposits": 1,
        "withdrawals": 1,
        "transfers": 2,
    }
    assert after["transfers"]["volume"] - before["transfers"]["volume"] == 300
    assert after["active_wallets"] - before["active_wallets"] == 3


async def test_who_has_moved_nothing_has_an_empty_snapshot(zoe: ApiClient, operator: ApiClient) -> None:
    empty = {"user_id": str(zoe.id), "last_activity_at": None, "currencies": []}
    assert (await zoe.get(f"/metrics/users/{zoe.id}")).document == empty
    assert refusal(await operator.get(f"/metrics/users/{zoe.id}")) == (404, "user_not_found")
    await zoe.wallet()
    await until(lambda: operator.get(f"/metrics/users/{zoe.id}"), lambda reply: reply.status == 200)


@pytest.mark.parametrize(
    ("path", "refused"),
    [
        ("/metrics/daily", (403, "operator_required")),
        ("/metrics/users/00000000-0000-0000-0000-000000000001", (403, "not_yours")),
        ("/metrics/users/me", (400, "invalid_field")),
    ],
)
async def test_what_concerns_others_is_refused(zoe: ApiClient, path: str, refused: tuple[int, str]) -> None:
    assert refusal(await zoe.get(path)) == refused


@pytest.mark.parametrize(
    ("query", "refused"),
    [
        ("from=2026-11-02&to=2026-11-01", (422, "invalid_period")),
        ("from=2020-01-01", (422, "too_many_days")),
        ("from=yesterday", (400, "invalid_field")),
        ("currency=euro", (400, "invalid_field")),
        ("since=2026-11-01", (400, "unknown_field")),
    ],
)
async def test_what_is_no_period_is_refused(
    operator: ApiClient, query: str, refused: tuple[int, str]
) -> None:
    assert refusal(await operator.get(f"/metrics/daily?{query}")) == refused


@pytest.mark.parametrize("query", ["from=9999-12-31T23:59:59Z", "to=1970-01-01", "to=0000-01-01"])
async def test_where_nothing_can_have_happened_there_are_no_days(operator: ApiClient, query: str) -> None:
    assert (await operator.get(f"/metrics/daily?{query}")).document == {"data": []}


async def test_without_postgresql_redis_tells_of_days_also_after_it_has_forgotten_all(
    settled: Stack, clients: ApiClients, zoe: ApiClient
) -> None:
    operator = clients.operator()
    await zoe.wallet(7, currency="ISK")
    await snapshot(zoe, zoe, 1)
    there = await day(operator, "ISK")
    redis = Redis.from_url(settled.env["MERCURIA_REDIS"])
    try:
        await redis.flushall()
        partitions = int(settled.env["MERCURIA_PARTITIONS"])
        await until(lambda: redis.hlen("analytics:sealed:positions"), lambda length: length == partitions)
    finally:
        await redis.aclose()
    settled.postgres.suspend()
    try:
        await until(lambda: day(operator, "ISK"), lambda found: found == there)
        assert refusal(await zoe.get(f"/metrics/users/{zoe.id}")) == (503, "database_unavailable")
    finally:
        settled.postgres.resume()
    await asyncio.to_thread(settled.postgres.wait_ready)
