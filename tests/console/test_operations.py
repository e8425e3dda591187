"""What operators are told of everything at once is what PostgreSQL and Kafka have; and nobody else is told."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mercuria.domain.money import MINOR_DIGITS
from mercuria.embedded.stack import Stack
from mercuria.postgres.database import Database, Transaction, queries
from mercuria.projections.operations import Operations
from mercuria.web.lag import TOPICS_OF_STAGES
from mercuria.web.operations import MAX_STEPS
from tests.web.api_client import ApiClient, refusal, until

CALLS = ("/operations/lag", "/operations/flow", "/operations/in-flight", "/operations/readiness")

PENDING = """\
INSERT INTO transactions
    (created_at, partition, command_offset, id, kind, status, from_wallet_id, to_wallet_id, is_refused, amount,
    currency, metadata, completed_at)
SELECT %(now)s::timestamptz - number * interval '1 second', -1, number, gen_random_uuid(), 'transfer', %(status)s,
    gen_random_uuid(), gen_random_uuid(), false, 9223372036854775807, 'XTS', '{}',
    CASE WHEN %(status)s = 'completed' THEN now() END
FROM generate_series(1, %(count)s) AS numbers (number)"""


class _Undo(Exception):
    """Ends a transaction without effect."""


@pytest.fixture
async def undone(live_stack: Stack) -> AsyncIterator[Transaction]:
    """Return a transaction with PostgreSQL of which nothing will be left."""
    # As the owner of the tables, who alone may have their statistics made anew.
    database = Database(live_stack.env["MERCURIA_DATABASE_OWNER"])
    try:
        async with database.transaction() as transaction:
            yield transaction
            raise _Undo
    except _Undo:
        pass
    finally:
        await database.close()


@pytest.mark.parametrize("path", CALLS)
async def test_only_operators_are_told(zoe: ApiClient, operator: ApiClient, path: str) -> None:
    assert refusal(await zoe.get(path)) == (403, "operator_required")
    for worker in (0, 1):
        assert (await operator.get(path, worker=worker)).status == 200


async def test_stages_that_have_worked_through_everything_are_not_behind(
    live_stack: Stack, zoe: ApiClient, operator: ApiClient
) -> None:
    await zoe.wallet(100)
    partitions = list(range(int(live_stack.env["MERCURIA_PARTITIONS"])))

    async def stages() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await operator.get("/operations/lag", worker=1)).document["stages"]
        return found

    # A projection is listed once it has a checkpoint, on a new stack after its first event.
    expected = {"wallets", "transactions", "ledger"}
    found = await until(
        stages,
        lambda all_: (
            expected <= {stage["stage"] for stage in all_} and not any(stage["lag"] for stage in all_)
        ),
    )
    names = [stage["stage"] for stage in found]
    assert names[:3] == ["wallets", "transactions", "ledger"]
    for stage in found:
        assert stage["topic"] == TOPICS_OF_STAGES[stage["stage"]]
        assert [each["partition"] for each in stage["partitions"]] == partitions
        assert any(each["end"] for each in stage["partitions"])


async def test_the_flow_counts_and_sums_what_began_and_why_it_failed(
    zoe: ApiClient, operator: ApiClient
) -> None:
    currency = "CLF"  # No other test has it.
    wallet, other = await zoe.wallet(500, currency=currency), await zoe.wallet(currency=currency)
    assert (await zoe.deposit(wallet, 250)).status == 201
    assert (await zoe.transfer(wallet, other, 50)).status == 201
    expected = {("deposit", "completed", None): (2, 750), ("transfer", "completed", None): (1, 50)}
    await until(lambda: _sums(operator, currency), lambda found: found == expected)
    before = (await _failures(operator))["insufficient_funds"]
    assert (await zoe.withdraw(wallet, 10**6)).status == 422
    await until(lambda: _failures(operator), lambda found: found["insufficient_funds"] == before + 1)


async def _sums(operator: ApiClient, currency: str) -> dict[tuple[str, str, str | None], tuple[int, int]]:
    found: dict[tuple[str, str, str | None], tuple[int, int]] = {}
    for row in (await operator.get("/operations/flow?minutes=5")).document["data"]:
        if row["currency"] == currency:
            kind = (row["kind"], row["status"], row["failure_code"])
            count, volume = found.get(kind, (0, 0))
            found[kind] = (count + row["count"], volume + row["volume"])
    return found


async def _failures(operator: ApiClient) -> Counter[str]:
    found: Counter[str] = Counter()
    for row in (await operator.get("/operations/flow?minutes=5")).document["data"]:
        if row["failure_code"]:
            found[row["failure_code"]] += row["count"]
    return found


async def test_the_flow_has_whole_steps_and_not_too_many_of_them(operator: ApiClient) -> None:
    page = (await operator.get("/operations/flow?minutes=1440&step=15")).document
    for moment in (page["since"], *(row["at"] for row in page["data"])):
        assert datetime.fromisoformat(moment).timestamp() % (15 * 60) == 0
    assert (await operator.get(f"/operations/flow?minutes={MAX_STEPS}")).status == 200
    longer = await operator.get(f"/operations/flow?minutes={MAX_STEPS + 1}")
    assert (longer.status, longer.document["step"]) == (200, 2)
    for query in ("minutes=0", "minutes=1441&step=60", "step=0", "hours=1"):
        assert (await operator.get(f"/operations/flow?{query}")).status == 400


async def test_what_is_in_flight_is_summed_up_beyond_64_bits(undone: Transaction) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    await undone.execute(PENDING, {"now": now, "status": "pending", "count": 3})
    (found,) = [row for row in await Operations(undone).in_flight() if row.currency == "XTS"]
    assert found[1:] == (3, 3 * (2**63 - 1), now - timedelta(seconds=3))


async def test_the_flow_reads_what_the_window_holds_and_not_all_there_is(undone: Transaction) -> None:
    await undone.execute(PENDING, {"now": datetime.now(UTC), "status": "completed", "count": 100_000})
    await undone.execute("ANALYZE transactions")
    sql = queries("mercuria.projections", "operations.sql")
    since = datetime.now(UTC) - timedelta(minutes=1)
    plan = await undone.rows(f"EXPLAIN {sql['flow']}", {"since": since, "step": 1})
    assert any("transactions_pkey" in row[0] for row in plan), plan
    plan = await undone.rows(f"EXPLAIN {sql['in_flight']}")
    assert any("transactions_by_status" in row[0] for row in plan), plan


async def test_currencies_are_told_with_their_digits(zoe: ApiClient) -> None:
    found = (await zoe.get("/currencies")).document["data"]
    assert {each["code"]: each["digits"] for each in found} == MINOR_DIGITS
    assert all(each["name"] for each in found)


async def test_several_may_look_at_once(operator: ApiClient) -> None:
    paths = [path for path in CALLS for _ in range(8)]
    replies = await asyncio.gather(
        *(operator.get(path, worker=index % 2) for index, path in enumerate(paths))
    )
    assert {reply.status for reply in replies} == {200}
