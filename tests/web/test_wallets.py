"""Wallets over HTTP: every call, as it should be and as it is refused."""

import asyncio
from typing import Any
from uuid import UUID, uuid4

import pytest

from mercuria.domain.rejections import DETAILS, Code
from tests.web.api_client import ApiClient, ApiClients, Scene, refusal, until

FIELDS = [
    "id",
    "owner_id",
    "currency",
    "balance",
    "overdraft_limit",
    "status",
    "version",
    "metadata",
    "created_at",
    "updated_at",
]
TRANSACTION_FIELDS = [
    "id",
    "kind",
    "status",
    "from_wallet_id",
    "to_wallet_id",
    "amount",
    "currency",
    "reference",
    "metadata",
    "failure",
    "created_at",
    "completed_at",
    "effective_at",
]
LARGEST = 2**63 - 1


# Opening.


async def test_a_wallet_is_opened_empty_and_is_there_at_every_worker(zoe: ApiClient) -> None:
    opened = await zoe.post("/wallets", {"currency": "EUR", "metadata": {"label": "Household"}})
    wallet = opened.document
    assert (opened.status, opened.headers["Location"]) == (201, f"/api/v1/wallets/{wallet['id']}")
    assert list(wallet) == FIELDS
    assert wallet == wallet | {
        "owner_id": str(zoe.id),
        "currency": "EUR",
        "balance": 0,
        "overdraft_limit": 0,
        "status": "open",
        "version": 1,
        "metadata": {"label": "Household"},
    }
    assert wallet["created_at"] == wallet["updated_at"] and wallet["created_at"].endswith("Z")
    for worker in (0, 1):
        shown = await zoe.get(f"/wallets/{wallet['id']}", worker=worker)
        assert (shown.status, shown.body) == (200, opened.body)


async def test_an_operator_opens_wallets_for_others_and_with_an_overdraft(
    operator: ApiClient, zoe: ApiClient
) -> None:
    body = {"currency": "JPY", "overdraft_limit": 500, "owner_id": str(zoe.id)}
    opened = await operator.post("/wallets", body)
    assert (opened.status, opened.document["overdraft_limit"]) == (201, 500)
    wallet_id = opened.document["id"]
    assert (await zoe.withdraw(wallet_id, 500)).document["wallet"]["balance"] == -500
    assert refusal(await zoe.withdraw(wallet_id, 1)) == (422, "insufficient_funds")


NOT_OPENED: dict[str, tuple[str, dict[str, Any], int, str]] = {
    "an unknown currency": ("owner", {"currency": "XYZ"}, 422, "unknown_currency"),
    "a currency in small letters": ("owner", {"currency": "eur"}, 422, "unknown_currency"),
    "gold": ("owner", {"currency": "XAU"}, 422, "unknown_currency"),
    "an overdraft": ("owner", {"currency": "EUR", "overdraft_limit": 1}, 403, "operator_required"),
    "for somebody else": ("owner", {"currency": "EUR", "owner_id": str(uuid4())}, 403, "operator_required"),
    "an overdraft below zero": (
        "operator",
        {"currency": "EUR", "overdraft_limit": -1},
        422,
        "overdraft_limit_out_of_range",
    ),
    "an overdraft beyond 64 bits": (
        "operator",
        {"currency": "EUR", "overdraft_limit": 2**63},
        422,
        "overdraft_limit_out_of_range",
    ),
}


@pytest.mark.parametrize("name", NOT_OPENED)
async def test_what_is_not_opened(scene: Scene, name: str) -> None:
    who, body, status, code = NOT_OPENED[name]
    reply = await scene.clients[who].post("/wallets", body)
    assert refusal(reply) == (status, code)
    assert DETAILS[Code(code)] in reply.document["detail"]


# Showing.


@pytest.mark.parametrize("consistency", ["", "?consistency=eventual", "?consistency=strong"])
@pytest.mark.parametrize("worker", [0, 1])
async def test_who_may_see_a_wallet(scene: Scene, consistency: str, worker: int) -> None:
    path = f"/wallets/{scene.wallets['open']}{consistency}"
    mine = await scene.owner.get(path, worker=worker)
    theirs = await scene.clients["operator"].get(path, worker=worker)
    assert (mine.status, mine.document["balance"], mine.body) == (200, 100, theirs.body)
    assert refusal(await scene.clients["stranger"].get(path, worker=worker)) == (403, "not_wallet_owner")
    unknown = f"/wallets/{scene.wallets['unknown']}{consistency}"
    assert refusal(await scene.owner.get(unknown, worker=worker)) == (404, "wallet_not_found")


async def test_a_wallet_reads_the_same_at_its_owner_and_elsewhere(zoe: ApiClient) -> None:
    wallet_ids = await asyncio.gather(*(zoe.wallet() for _ in range(8)))
    for amount in range(1, 4):
        for wallet_id in wallet_ids:
            deposited = await zoe.deposit(wallet_id, amount, worker=amount % 2)
            shown = [await zoe.get(f"/wallets/{wallet_id}", worker=worker) for worker in (0, 1)]
            assert [each.document for each in shown] == [deposited.document["wallet"]] * 2


async def test_strong_consistency_shows_what_was_only_promised(zoe: ApiClient) -> None:
    for round_ in range(5):
        wallet_id = await zoe.wallet()
        for worker in (0, 1):
            before = await zoe.balance(wallet_id)
            promised = await zoe.deposit(wallet_id, 7, prefer="respond-async", worker=round_ % 2)
            assert (promised.status, promised.document["status"]) == (202, "pending")
            shown = await zoe.get(f"/wallets/{wallet_id}?consistency=strong", worker=worker)
            assert shown.document["balance"] == before + 7


async def test_the_callers_own_wallets_are_listed_newest_first(zoe: ApiClient, max_: ApiClient) -> None:
    wallet_ids = [await zoe.wallet(currency=currency) for currency in ("EUR", "USD", "EUR")]
    await max_.wallet()
    await zoe.post(f"/wallets/{wallet_ids[0]}/close")
    shown = [await zoe.get(f"/wallets/{wallet_id}") for wallet_id in reversed(wallet_ids)]
    expected = [each.document for each in shown]
    listed = await until(lambda: zoe.all_of("/wallets"), lambda found: found == expected)
    assert [each["id"] for each in await zoe.all_of("/wallets", limit=1)] == [each["id"] for each in listed]
    for query, matching in (("status=closed", [2]), ("status=open", [0, 1]), ("currency=EUR", [0, 2])):
        assert await zoe.all_of(f"/wallets?{query}") == [expected[each] for each in matching]
    assert await zoe.all_of("/wallets?currency=EUR&status=open", limit=1) == [expected[0]]


# Money in and out.


@pytest.mark.parametrize("worker", [0, 1])
async def test_money_is_brought_in_and_taken_out(zoe: ApiClient, worker: int) -> None:
    wallet_id = await zoe.wallet()
    body = {"amount": 1050, "reference": "Salary", "metadata": {"month": "November"}}
    for path, kind, sides, balance in (
        ("deposit", "deposit", {"from_wallet_id": None, "to_wallet_id": wallet_id}, 1050),
        ("withdraw", "withdrawal", {"from_wallet_id": wallet_id, "to_wallet_id": None}, 0),
    ):
        reply = await zoe.post(f"/wallets/{wallet_id}/{path}", body, worker=worker)
        moved = reply.document
        assert (reply.status, reply.headers["Location"]) == (201, f"/api/v1/transactions/{moved['id']}")
        assert "Idempotent-Replayed" not in reply.headers
        assert list(moved) == [*TRANSACTION_FIELDS, "wallet"]
        assert moved == moved | body | sides | {"kind": kind, "status": "completed", "currency": "EUR"}
        assert moved["failure"] is None and moved["created_at"] == moved["completed_at"]
        shown = (await zoe.get(f"/wallets/{wallet_id}", worker=1 - worker)).document
        assert moved["wallet"] == shown and shown["balance"] == balance
        transaction = (await zoe.get(f"/transactions/{moved['id']}", worker=1 - worker)).document
        assert transaction == {name: moved[name] for name in TRANSACTION_FIELDS}


async def test_a_wallet_holds_as_much_as_64_bits(zoe: ApiClient) -> None:
    wallet_id = await zoe.wallet(LARGEST)
    assert await zoe.balance(wallet_id) == LARGEST
    assert (await zoe.withdraw(wallet_id, LARGEST)).document["wallet"]["balance"] == 0


MOVES = ("deposit", "withdraw")
NOT_MOVED: dict[str, tuple[str, str, Any, int, str]] = {
    "nothing": ("owner", "open", 0, 422, "amount_must_be_positive"),
    "less than nothing": ("owner", "open", -1, 422, "amount_must_be_positive"),
    "the least of 64 bits": ("owner", "open", -(2**63), 422, "amount_must_be_positive"),
    "more than 64 bits": ("owner", "open", 2**63, 422, "amount_too_large"),
    "more than many bits": ("owner", "open", 10**40, 422, "amount_too_large"),
    "in an unknown wallet": ("owner", "unknown", 1, 404, "wallet_not_found"),
    "in another person's wallet": ("owner", "stranger's", 1, 403, "not_wallet_owner"),
    "as an operator": ("operator", "open", 1, 403, "not_wallet_owner"),
    "in a frozen wallet": ("owner", "frozen", 1, 422, "wallet_frozen"),
    "in a closed wallet": ("owner", "closed", 1, 422, "wallet_closed"),
    # Of two reasons, the first counts, in the order of docs/kafka.md, "Rejections".
    "nothing in an unknown wallet": ("owner", "unknown", 0, 422, "amount_must_be_positive"),
    "in a frozen wallet of somebody else": ("stranger", "frozen", 1, 403, "not_wallet_owner"),
}


@pytest.mark.parametrize("name", NOT_MOVED)
@pytest.mark.parametrize("move", MOVES)
async def test_what_is_not_moved(scene: Scene, move: str, name: str) -> None:
    who, wallet, amount, status, code = NOT_MOVED[name]
    await assert_refused(scene, who, wallet, move, {"amount": amount}, status, code)


async def test_what_there_is_no_money_or_no_room_for(scene: Scene) -> None:
    body = {"amount": 101}
    await assert_refused(scene, "owner", "open", "withdraw", body, 422, "insufficient_funds")
    await assert_refused(scene, "owner", "full", "deposit", body, 422, "balance_would_overflow")


async def assert_refused(
    scene: Scene, who: str, wallet: str, call: str, body: Any, status: int, code: str
) -> None:
    """Ask for something at both workers, and check that it is refused with its sentence, and changes nothing."""
    path = f"/wallets/{scene.wallets[wallet]}"
    operator = scene.clients["operator"]
    before = (await operator.get(path)).document
    for worker in (0, 1):
        reply = await scene.clients[who].post(f"{path}/{call}", body, worker=worker)
        assert refusal(reply) == (status, code)
        assert DETAILS[Code(code)] in reply.document["detail"]
    after = (await operator.get(f"{path}?consistency=strong")).document
    # Of an unknown wallet, both are problems, each of its own request.
    assert after | {"instance": ""} == before | {"instance": ""}


async def test_a_hundred_withdraw_at_once_and_get_what_the_wallet_holds(zoe: ApiClient) -> None:
    wallet_id = await zoe.wallet(1000)
    replies = await asyncio.gather(*(zoe.withdraw(wallet_id, 30, worker=n % 2) for n in range(100)))
    paid = [reply for reply in replies if reply.status == 201]
    assert {refusal(reply) for reply in replies if reply.status != 201} == {(422, "insufficient_funds")}
    assert sorted(reply.document["wallet"]["balance"] for reply in paid) == list(range(10, 1000, 30))
    assert await zoe.balance(wallet_id) == 10
    withdrawn = await until(
        lambda: zoe.all_of(f"/transactions?wallet_id={wallet_id}&kind=withdrawal&status=completed"),
        lambda found: len(found) == len(paid),
    )
    assert {each["id"] for each in withdrawn} == {reply.document["id"] for reply in paid}


# The life of a wallet.


async def test_a_wallet_is_frozen_unfrozen_and_closed(zoe: ApiClient, operator: ApiClient) -> None:
    wallet_id = await zoe.wallet()
    path = f"/wallets/{wallet_id}"
    for who, call, status in (
        (operator, "freeze", "frozen"),
        (operator, "unfreeze", "open"),
        (zoe, "close", "closed"),
    ):
        reply = await who.post(f"{path}/{call}", {"reason": f"To be {status}"}, worker=1)
        assert (reply.status, reply.document["status"]) == (200, status)
        for worker in (0, 1):
            assert (await zoe.get(path, worker=worker)).body == reply.body
    events = await until(lambda: zoe.all_of(f"{path}/events"), lambda found: len(found) == 4)
    assert [(each["status"], each["reason"]) for each in events] == [
        ("closed", "To be closed"),
        ("open", "To be open"),
        ("frozen", "To be frozen"),
        ("open", None),
    ]


async def test_a_reason_and_even_a_body_may_be_missing(zoe: ApiClient) -> None:
    for body, fields in ((b"", ()), (None, ()), (b"{}", ("Content-Type: application/json",))):
        wallet_id = await zoe.wallet()
        reply = await zoe.ask("POST", f"/wallets/{wallet_id}/close", body, *fields)
        assert (reply.status, reply.document["status"]) == (200, "closed")


NOT_CHANGED: dict[str, tuple[str, str, str, int, str]] = {
    "frozen by its owner": ("owner", "open", "freeze", 403, "operator_required"),
    "unfrozen by its owner": ("owner", "frozen", "unfreeze", 403, "operator_required"),
    "frozen, and unknown": ("operator", "unknown", "freeze", 404, "wallet_not_found"),
    "unfrozen, and unknown": ("operator", "unknown", "unfreeze", 404, "wallet_not_found"),
    "closed, and unknown": ("owner", "unknown", "close", 404, "wallet_not_found"),
    "frozen twice": ("operator", "frozen", "freeze", 422, "wallet_frozen"),
    "unfrozen, and open": ("operator", "open", "unfreeze", 422, "wallet_not_frozen"),
    "frozen, and closed": ("operator", "closed", "freeze", 422, "wallet_closed"),
    "unfrozen, and closed": ("operator", "closed", "unfreeze", 422, "wallet_closed"),
    "closed by a stranger": ("stranger", "other", "close", 403, "not_wallet_owner"),
    "closed by an operator": ("operator", "other", "close", 403, "not_wallet_owner"),
    "closed with money in it": ("owner", "open", "close", 422, "wallet_not_empty"),
    "closed, and frozen": ("owner", "frozen", "close", 422, "wallet_frozen"),
    "closed twice": ("owner", "closed", "close", 422, "wallet_closed"),
}


@pytest.mark.parametrize("name", NOT_CHANGED)
async def test_what_does_not_change_a_wallet(scene: Scene, name: str) -> None:
    who, wallet, call, status, code = NOT_CHANGED[name]
    await assert_refused(scene, who, wallet, call, {"reason": "None"}, status, code)


# What happened.


async def test_the_events_of_a_wallet_say_what_happened_to_it(zoe: ApiClient, max_: ApiClient) -> None:
    wallet_id, theirs = await zoe.wallet(100), await max_.wallet()
    sent = (await zoe.transfer(wallet_id, theirs, 40)).document
    back = (await max_.transfer(theirs, wallet_id, 15)).document
    await zoe.withdraw(wallet_id, 5)
    path = f"/wallets/{wallet_id}/events"
    events = await until(lambda: zoe.all_of(path), lambda found: len(found) == 5)
    assert [(each["type"], each["kind"], each["change"], each["balance"]) for each in events] == [
        ("wallet.balance_updated", "withdrawal", -5, 70),
        ("wallet.balance_updated", "transfer", 15, 75),
        ("wallet.balance_updated", "transfer", -40, 60),
        ("wallet.balance_updated", "deposit", 100, 100),
        ("wallet.created", None, 0, 0),
    ]
    assert [each["version"] for each in events] == [5, 4, 3, 2, 1]
    assert [each["command_id"] for each in events[1:3]] == [back["id"], sent["id"]]
    assert {each["counterparty_id"] for each in events[1:3]} == {theirs}
    assert await zoe.all_of(path, limit=2) == events


@pytest.mark.parametrize("worker", [0, 1])
async def test_who_may_see_the_events_of_a_wallet(scene: Scene, worker: int) -> None:
    path = f"/wallets/{scene.wallets['open']}/events"
    shown = [await scene.clients[who].get(path, worker=worker) for who in ("owner", "operator")]
    assert [each.status for each in shown] == [200, 200] and shown[0].body == shown[1].body
    assert refusal(await scene.clients["stranger"].get(path, worker=worker)) == (403, "not_wallet_owner")
    unknown = f"/wallets/{scene.wallets['unknown']}/events"
    assert refusal(await scene.owner.get(unknown, worker=worker)) == (404, "wallet_not_found")


async def test_pages_of_events_are_whole_while_more_happens(zoe: ApiClient) -> None:
    wallet_id = await zoe.wallet()
    path = f"/wallets/{wallet_id}/events"
    for _ in range(8):
        await zoe.deposit(wallet_id, 1)
    await until(lambda: zoe.all_of(path), lambda found: len(found) == 9)
    first = (await zoe.get(f"{path}?limit=3")).document
    more = asyncio.gather(*(zoe.deposit(wallet_id, 1, worker=n % 2) for n in range(20)))
    seen, page = list(first["data"]), first
    while page["has_more"]:
        page = (await zoe.get(f"{path}?limit=3&cursor={page['next_cursor']}", worker=1)).document
        seen += page["data"]
    assert [each["version"] for each in seen] == list(range(9, 0, -1))
    assert {reply.status for reply in await more} == {201}


async def test_ids_are_uuids_that_nobody_guesses(clients: ApiClients) -> None:
    zoe = clients.user()
    ids = {UUID(await zoe.wallet()) for _ in range(3)}
    assert len(ids) == 3 and {each.version for each in ids} == {4}
