"""Overdraft limits that operators change: who may, what counts from when, and that the past keeps its limits."""

from typing import Any

import pytest

from tests.web.api_client import ApiClient, Scene, refusal, until


async def limit(person: ApiClient, wallet_id: str, overdraft_limit: object, **more: Any) -> Any:
    """Set a limit."""
    reason = {"reason": more.pop("reason")} if "reason" in more else {}
    body = {"overdraft_limit": overdraft_limit} | reason
    return await person.ask("PUT", f"/wallets/{wallet_id}/limits", body, **more)


async def test_an_operator_changes_a_limit_and_all_see_it(zoe: ApiClient, operator: ApiClient) -> None:
    wallet_id = await zoe.wallet(100)
    assert refusal(await zoe.withdraw(wallet_id, 101)) == (422, "insufficient_funds")
    changed = await limit(operator, wallet_id, 50, reason="A good customer.")
    assert (changed.status, changed.document["overdraft_limit"], changed.document["version"]) == (200, 50, 3)
    for worker in (0, 1):
        assert await zoe.shown(wallet_id, worker=worker) == changed.document
    strong = await zoe.get(f"/wallets/{wallet_id}?consistency=strong", worker=1)
    assert strong.document == changed.document
    assert (await zoe.withdraw(wallet_id, 150)).status == 201
    assert refusal(await zoe.withdraw(wallet_id, 1)) == (422, "insufficient_funds")
    listed = await until(lambda: zoe.all_of("/wallets"), lambda found: found[0]["version"] == 4)
    assert (listed[0]["overdraft_limit"], listed[0]["balance"]) == (50, -50)
    events = await zoe.all_of(f"/wallets/{wallet_id}/events")
    assert [
        (each["type"], each["overdraft_limit"], each["reason"], each["change"]) for each in events[:2]
    ] == [
        ("wallet.balance_updated", None, None, -150),
        ("wallet.limits_changed", 50, "A good customer.", 0),
    ]


async def test_a_limit_may_be_above_the_debt_and_counts_for_what_comes(
    zoe: ApiClient, operator: ApiClient
) -> None:
    wallet_id, other_id = await zoe.wallet(), await zoe.wallet()
    await limit(operator, wallet_id, 100)
    assert (await zoe.withdraw(wallet_id, 80)).status == 201
    lowered = await limit(operator, wallet_id, 10)
    assert (lowered.status, lowered.document["balance"], lowered.document["overdraft_limit"]) == (
        200,
        -80,
        10,
    )
    assert refusal(await zoe.withdraw(wallet_id, 1)) == (422, "insufficient_funds")
    assert refusal(await zoe.transfer(wallet_id, other_id, 1)) == (422, "insufficient_funds")
    assert (await zoe.deposit(wallet_id, 71)).document["wallet"]["balance"] == -9
    assert (await zoe.withdraw(wallet_id, 1)).document["wallet"]["balance"] == -10
    await until(lambda: zoe.all_of("/wallets"), lambda found: found[-1]["version"] == 6)


async def test_the_past_has_the_limits_of_then(zoe: ApiClient, operator: ApiClient) -> None:
    wallet_id = await zoe.wallet()
    states = [await zoe.shown(wallet_id)]
    for amount in (30, 20, 70):
        states.append((await limit(operator, wallet_id, amount)).document)
        states.append((await zoe.withdraw(wallet_id, 5)).document["wallet"])
    for state in {each["updated_at"]: each for each in states}.values():
        at = state["updated_at"].replace("+", "%2B")
        then = await until(
            lambda at=at: zoe.get(f"/wallets/{wallet_id}?at={at}"),  # type: ignore[misc]
            lambda reply: reply.status == 200,
        )
        assert then.document == state


async def test_what_is_sent_again_is_answered_with_the_limit_of_then(
    zoe: ApiClient, operator: ApiClient
) -> None:
    wallet_id = await zoe.wallet(100)
    first = await limit(operator, wallet_id, 50, key="the first")
    deposit = await zoe.deposit(wallet_id, 5, key="a deposit")
    frozen = await operator.post(f"/wallets/{wallet_id}/freeze", key="a freeze")
    second = await limit(operator, wallet_id, 70, key="the second")
    assert (second.status, second.document["status"]) == (200, "frozen")
    for again, before in (
        (await limit(operator, wallet_id, 50, key="the first", worker=1), first),
        (await zoe.deposit(wallet_id, 5, key="a deposit", worker=1), deposit),
        (await operator.post(f"/wallets/{wallet_id}/freeze", key="a freeze"), frozen),
        (await limit(operator, wallet_id, 70, key="the second"), second),
    ):
        assert (again.status, again.body) == (before.status, before.body)
        assert again.headers["Idempotent-Replayed"] == "true"
    assert await zoe.shown(wallet_id) == second.document
    other = await limit(operator, wallet_id, 51, key="the first")
    assert refusal(other) == (422, "command_id_reused")


REFUSED: dict[str, tuple[str, str, object, int, str]] = {
    "by the owner": ("owner", "open", 5, 403, "operator_required"),
    "by a stranger": ("stranger", "open", 5, 403, "operator_required"),
    "below zero": ("operator", "open", -1, 422, "overdraft_limit_out_of_range"),
    "beyond 64 bits": ("operator", "open", 2**63, 422, "overdraft_limit_out_of_range"),
    "a text": ("operator", "open", "5", 400, "invalid_field"),
    "nothing": ("operator", "open", None, 400, "invalid_field"),
    "of a closed wallet": ("operator", "closed", 5, 422, "wallet_closed"),
    "of no wallet": ("operator", "unknown", 5, 404, "wallet_not_found"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_what_is_refused(scene: Scene, name: str) -> None:
    who, wallet, overdraft_limit, status, code = REFUSED[name]
    reply = await limit(scene.clients[who], scene.wallets[wallet], overdraft_limit)
    assert refusal(reply) == (status, code)


async def test_a_limit_has_to_be_said_and_nothing_else(scene: Scene) -> None:
    path, operator = f"/wallets/{scene.wallets['open']}/limits", scene.clients["operator"]
    assert refusal(await operator.ask("PUT", path, {})) == (400, "missing_field")
    body = {"overdraft_limit": 5, "currency": "EUR"}
    assert refusal(await operator.ask("PUT", path, body)) == (400, "unknown_field")
    assert refusal(await operator.ask("POST", path, body)) == (405, "method_not_allowed")
