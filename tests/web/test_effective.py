"""Effective dates over HTTP: they are carried to all that is shown, counted by, and decide nothing."""

import csv
import io
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.web.api_client import ApiClient, Scene, refusal, until
from tests.web.test_ledger import as_csv

DAY = "2021-03-04T00:00:00.000Z"
MARCH = "?from=2021-03-01&to=2021-04-01&by=effective&currency={}"


async def daily(operator: ApiClient, query: str) -> list[dict[str, Any]]:
    """Return the figures of days."""
    reply = await operator.get(f"/metrics/daily{query}")
    assert reply.status == 200, reply
    found: list[dict[str, Any]] = reply.document["data"]
    return found


async def test_an_effective_date_is_carried_to_all_that_is_shown(zoe: ApiClient, max_: ApiClient) -> None:
    wallet_id, theirs = await zoe.wallet(), await max_.wallet()
    body = {"amount": 50, "effective_at": "2021-03-04T01:00:00+01:00"}
    deposited = (await zoe.post(f"/wallets/{wallet_id}/deposit", body)).document
    withdrawn = (await zoe.post(f"/wallets/{wallet_id}/withdraw", body | {"amount": 5})).document
    sent = {"from_wallet_id": wallet_id, "to_wallet_id": theirs, "effective_at": "2999-01-01"}
    transferred = (await zoe.post("/transactions", sent | {"amount": 7}, worker=1)).document
    refused = await zoe.post("/transactions", sent | {"amount": 1000})
    assert refusal(refused) == (422, "insufficient_funds")
    plain = (await zoe.deposit(wallet_id, 1)).document
    moments = [DAY, DAY, "2999-01-01T00:00:00.000Z", None]
    movements = [deposited, withdrawn, transferred, plain]
    assert [each["effective_at"] for each in movements] == moments
    for each in movements:
        for worker in (0, 1):
            shown = await zoe.get(f"/transactions/{each['id']}", worker=worker)
            assert shown.document["effective_at"] == each["effective_at"]
    listed = await until(lambda: zoe.all_of("/transactions"), lambda found: len(found) == 5)
    assert {each["id"]: each["effective_at"] for each in listed if each["status"] == "completed"} == {
        each["id"]: each["effective_at"] for each in movements
    }
    assert [each["effective_at"] for each in listed if each["status"] == "failed"] == [moments[2]]
    entries = await until(lambda: zoe.all_of("/ledger"), lambda found: len(found) == 4)
    assert [each["effective_at"] for each in reversed(entries)] == moments
    both = (await max_.get(f"/ledger/{transferred['id']}")).document["entries"]
    assert [each["effective_at"] for each in both] == [moments[2]] * 2
    lines = (await zoe.get(f"/wallets/{wallet_id}/statement")).document["lines"]
    assert [each["effective_at"] for each in lines] == moments
    # The time of the decision stays what it is.
    assert {each["occurred_at"][:4] for each in lines} == {str(datetime.now(UTC).year)}


async def test_a_statement_as_csv_has_it(zoe: ApiClient) -> None:
    wallet_id = await zoe.wallet()
    await zoe.post(f"/wallets/{wallet_id}/deposit", {"amount": 50, "effective_at": "2021-03-04"})
    reply = await as_csv(zoe, f"/wallets/{wallet_id}/statement?format=csv")
    rows = csv.DictReader(io.StringIO(reply.body.decode("utf-8-sig"), newline=""))
    assert [each["effective_at"] for each in rows] == ["", DAY, ""]


async def test_two_ways_to_write_a_moment_are_one_request(zoe: ApiClient) -> None:
    wallet_id = await zoe.wallet()
    path = f"/wallets/{wallet_id}/deposit"
    first = await zoe.post(path, {"amount": 5, "effective_at": "2021-03-04"}, key="five")
    again = await zoe.post(path, {"amount": 5, "effective_at": "2021-03-04T02:00:00.0001+02:00"}, key="five")
    assert (again.status, again.body) == (201, first.body)
    for other in ("2021-03-05", None):
        body = {"amount": 5, "effective_at": other}
        assert refusal(await zoe.post(path, body, key="five")) == (422, "command_id_reused")
    assert await zoe.balance(wallet_id) == 5


@pytest.mark.parametrize(
    "text", ["", "yesterday", "2021-02-30", "2021-03-04T00:00:00", "0000-01-01", "10000-01-01", "x" * 65]
)
async def test_what_is_no_moment_is_refused_with_its_field(scene: Scene, text: str) -> None:
    wallet_id = scene.wallets["open"]
    for path, body in (
        (f"/wallets/{wallet_id}/deposit", {}),
        (f"/wallets/{wallet_id}/withdraw", {}),
        ("/transactions", {"from_wallet_id": wallet_id, "to_wallet_id": scene.wallets["other"]}),
    ):
        reply = await scene.owner.post(path, body | {"amount": 1, "effective_at": text})
        assert refusal(reply) == (400, "invalid_field")
        assert [each["field"] for each in reply.document["errors"]] == ["effective_at"]


async def test_days_are_counted_by_effective_date(zoe: ApiClient, operator: ApiClient) -> None:
    today = str(datetime.now(UTC).date())
    recorded = f"?from={today}&currency=TND"
    wallet_id, other_id = await zoe.wallet(currency="TND"), await zoe.wallet(currency="TND")
    await zoe.post(f"/wallets/{wallet_id}/deposit", {"amount": 50, "effective_at": "2021-03-04"})
    await zoe.post(f"/wallets/{wallet_id}/deposit", {"amount": 8, "effective_at": "2021-03-04T23:59:59.999Z"})
    await zoe.post(f"/wallets/{wallet_id}/withdraw", {"amount": 3, "effective_at": "0001-01-01"})
    await zoe.post(f"/wallets/{wallet_id}/deposit", {"amount": 2, "effective_at": "9999-12-31"})
    await zoe.deposit(other_id, 4)

    def is_counted(found: list[dict[str, Any]]) -> bool:
        return bool(found) and found[0]["deposits"]["count"] + found[0]["withdrawals"]["count"] == 5

    (row,) = await until(lambda: daily(operator, recorded), is_counted)
    assert (row["deposits"], row["active_wallets"]) == ({"count": 4, "volume": 64}, 2)
    (now,) = await daily(operator, f"{recorded}&by=effective")
    assert (now["date"], now["deposits"], now["active_wallets"]) == (today, {"count": 1, "volume": 4}, 1)
    assert now["withdrawals"] == {"count": 0, "volume": 0}
    (then,) = await daily(operator, MARCH.format("TND"))
    assert (then["date"], then["deposits"]) == ("2021-03-04", {"count": 2, "volume": 58})
    (first,) = await daily(operator, "?from=0001-01-01&to=0001-02-01&by=effective&currency=TND")
    assert (first["date"], first["withdrawals"]["volume"]) == ("0001-01-01", 3)
    (last,) = await daily(operator, "?from=9999-12-31&by=effective&currency=TND")
    assert (last["date"], last["deposits"]["volume"]) == ("9999-12-31", 2)
    assert await daily(operator, "?from=9999-12-31T23:59:59Z&by=effective") == []
    assert await daily(operator, f"{recorded}&by=recorded") == [row]


@pytest.mark.parametrize(
    ("query", "refused"),
    [
        ("by=booked", (400, "invalid_field")),
        ("by=effective&from=2021-03-04&to=2021-03-04", (422, "invalid_period")),
        ("by=effective&from=1900-01-01&to=1902-01-01", (422, "too_many_days")),
        ("by=effective&from=1900-01-01", (422, "too_many_days")),
        ("by=effective&from=2021-02-30", (400, "invalid_field")),
    ],
)
async def test_what_is_no_period_is_refused(
    operator: ApiClient, query: str, refused: tuple[int, str]
) -> None:
    assert refusal(await operator.get(f"/metrics/daily?{query}")) == refused
