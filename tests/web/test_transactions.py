"""Transactions over HTTP: transfers, how long callers wait for them, and what became of every movement of money."""

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from mercuria.domain.rejections import DETAILS, Code
from tests.web.api_client import ApiClient, ApiClients, Scene, refusal, until
from tests.web.test_wallets import TRANSACTION_FIELDS
from tests.web.wire import Reply

# Transfers.


@pytest.mark.parametrize("worker", [0, 1])
async def test_money_moves_to_another_persons_wallet(zoe: ApiClient, max_: ApiClient, worker: int) -> None:
    for _ in range(4):  # Wallets of one partition, of two, and of two workers.
        source, target = await zoe.wallet(100), await max_.wallet(1)
        more = {"reference": "Rent, November", "metadata": {"flat": "3b"}}
        body = {"from_wallet_id": source, "to_wallet_id": target, "amount": 30, **more}
        reply = await zoe.post("/transactions", body, worker=worker)
        moved = reply.document
        assert (reply.status, reply.headers["Location"]) == (201, f"/api/v1/transactions/{moved['id']}")
        assert not {"Idempotent-Replayed", "Preference-Applied"} & set(reply.headers)
        assert list(moved) == TRANSACTION_FIELDS
        assert moved == moved | body | {"kind": "transfer", "status": "completed", "currency": "EUR"}
        assert moved["failure"] is None and moved["created_at"] <= moved["completed_at"]
        # Both halves are done when it is answered. The receiver's, whose wallet answered, is to be seen everywhere.
        for each in (0, 1):
            assert await zoe.balance(source, worker=each) == 70
            assert (await max_.shown(target, worker=each))["balance"] == 31
            for who in (zoe, max_):
                assert (await who.get(f"/transactions/{moved['id']}", worker=each)).body == reply.body


async def test_who_may_see_a_transaction(
    zoe: ApiClient, max_: ApiClient, clients: ApiClients, operator: ApiClient
) -> None:
    transfer = await zoe.transfer(await zoe.wallet(100), await max_.wallet(), 1)
    path = f"/transactions/{transfer.document['id']}"
    for worker in (0, 1):
        for who in (zoe, max_, operator):
            assert (await who.get(path, worker=worker)).body == transfer.body
        assert refusal(await clients.user().get(path, worker=worker)) == (403, "not_yours")
        unknown = await zoe.get(f"/transactions/{uuid4()}", worker=worker)
        assert refusal(unknown) == (404, "transaction_not_found")


NOT_SENT: dict[str, tuple[str, str, str, Any, int, str]] = {
    "nothing": ("owner", "open", "other", 0, 422, "amount_must_be_positive"),
    "less than nothing": ("owner", "open", "other", -1, 422, "amount_must_be_positive"),
    "more than 64 bits": ("owner", "open", "other", 2**63, 422, "amount_too_large"),
    "to itself": ("owner", "open", "open", 1, 422, "source_and_target_must_differ"),
    "from an unknown wallet": ("owner", "unknown", "open", 1, 422, "wallet_not_found"),
    "from another person's wallet": ("owner", "stranger's", "open", 1, 403, "not_wallet_owner"),
    "as an operator": ("operator", "open", "other", 1, 403, "not_wallet_owner"),
    "from a frozen wallet": ("owner", "frozen", "open", 1, 422, "wallet_frozen"),
    "from a closed wallet": ("owner", "closed", "open", 1, 422, "wallet_closed"),
    "more than there is": ("owner", "open", "other", 101, 422, "insufficient_funds"),
}


@pytest.mark.parametrize("name", NOT_SENT)
async def test_what_is_not_sent(scene: Scene, name: str) -> None:
    who, source, target, amount, status, code = NOT_SENT[name]
    for worker in (0, 1):
        reply = await scene.clients[who].transfer(
            scene.wallets[source], scene.wallets[target], amount, worker=worker
        )
        assert refusal(reply) == (status, code)
        assert DETAILS[Code(code)] in reply.document["detail"]
    assert await scene.owner.balance(scene.wallets["open"]) == 100
    assert await scene.owner.balance(scene.wallets["other"]) == 0


NOT_RECEIVED = {
    "unknown": "wallet_not_found",
    "dollars": "currency_mismatch",
    "frozen": "wallet_frozen",
    "closed": "wallet_closed",
    "full": "balance_would_overflow",
}


@pytest.mark.parametrize("target", NOT_RECEIVED)
@pytest.mark.parametrize("worker", [0, 1])
async def test_what_is_not_received_comes_back(
    scene: Scene, zoe: ApiClient, target: str, worker: int
) -> None:
    source, code = await zoe.wallet(100), NOT_RECEIVED[target]
    reply = await zoe.transfer(source, scene.wallets[target], 30, worker=worker)
    assert refusal(reply) == (422, code)
    assert reply.document["detail"] == f"The receiver refused it: {DETAILS[Code(code)]}"
    for each in (0, 1):
        assert (await zoe.shown(source, worker=each))["balance"] == 100
    (failed,) = await until(lambda: zoe.all_of("/transactions?status=failed"), lambda found: len(found) == 1)
    assert (failed["from_wallet_id"], failed["to_wallet_id"]) == (source, scene.wallets[target])
    assert failed["failure"] == {"code": code, "detail": DETAILS[Code(code)]}
    assert failed["completed_at"] is None
    shown = await zoe.get(f"/transactions/{failed['id']}", worker=1 - worker)
    assert shown.document == failed


async def test_transfers_in_a_ring_keep_the_sum(zoe: ApiClient) -> None:
    ring = await asyncio.gather(*(zoe.wallet(100) for _ in range(6)))
    moves = [(ring[n % 6], ring[(n + 1 + n % 4) % 6], n % 50 + 1, n % 2) for n in range(120)]
    replies = await asyncio.gather(
        *(zoe.transfer(source, target, amount, worker=worker) for source, target, amount, worker in moves)
    )
    assert {reply.status for reply in replies} <= {201, 422}
    assert {reply.code for reply in replies if reply.status == 422} <= {"insufficient_funds"}
    expected = dict.fromkeys(ring, 100)
    for (source, target, amount, _), reply in zip(moves, replies, strict=True):
        if reply.status == 201:
            expected[source] -= amount
            expected[target] += amount
    balances = {wallet_id: await zoe.balance(wallet_id) for wallet_id in ring}
    assert balances == expected and sum(balances.values()) == 600


# How long a caller waits.


@pytest.mark.parametrize("worker", [0, 1])
@pytest.mark.parametrize("prefer", ["respond-async", "wait=0", "respond-async, wait=10"])
async def test_who_does_not_wait_is_told_where_to_look(zoe: ApiClient, prefer: str, worker: int) -> None:
    source, target = await zoe.wallet(100), await zoe.wallet()
    for call in (
        zoe.transfer(source, target, 1, prefer=prefer, worker=worker),
        zoe.deposit(source, 2, prefer=prefer, worker=worker),
        zoe.withdraw(source, 3, prefer=prefer, worker=worker),
    ):
        reply = await call
        asked = reply.document
        assert (reply.status, reply.headers["Location"]) == (202, f"/api/v1/transactions/{asked['id']}")
        assert reply.headers["Preference-Applied"] == prefer.partition(",")[0]
        await assert_completes(zoe, asked)
    assert [await zoe.balance(wallet_id) for wallet_id in (source, target)] == [98, 1]


async def assert_completes(zoe: ApiClient, asked: dict[str, Any]) -> None:
    """Check that both workers know a transaction that was just promised, and that it is completed soon."""
    path = f"/transactions/{asked['id']}"
    for worker in (0, 1):
        shown = await zoe.get(path, worker=worker)
        assert shown.status == 200 and shown.document["status"] in ("pending", "completed")
    for worker in (0, 1):

        async def look(worker: int = worker) -> Reply:
            return await zoe.get(path, worker=worker)

        reply = await until(look, lambda reply: reply.document["status"] != "pending")
        completed = reply.document
        same = set(asked) - {"status", "currency", "created_at", "completed_at", "wallet"}
        assert {name: completed[name] for name in same} == {name: asked[name] for name in same}
        assert (completed["status"], completed["currency"]) == ("completed", "EUR")
        assert completed["created_at"] and completed["completed_at"]


async def test_what_was_promised_may_fail(zoe: ApiClient) -> None:
    source, target = await zoe.wallet(100), str(uuid4())
    for call, code in (
        (zoe.withdraw(source, 101, prefer="respond-async"), "insufficient_funds"),
        (zoe.transfer(source, target, 101, prefer="respond-async"), "insufficient_funds"),
        (zoe.transfer(source, target, 100, prefer="respond-async"), "wallet_not_found"),
    ):
        path = f"/transactions/{(await call).document['id']}"

        async def look(path: str = path) -> Reply:
            return await zoe.get(path, worker=1)

        failed = (await until(look, lambda reply: reply.document["status"] != "pending")).document
        assert (failed["status"], failed["failure"]["code"]) == ("failed", code)
    assert await zoe.balance(source) == 100


async def test_who_opens_or_changes_a_wallet_need_not_wait_either(
    zoe: ApiClient, operator: ApiClient
) -> None:
    opened = await zoe.post("/wallets", {"currency": "EUR"}, prefer="respond-async")
    assert (opened.status, opened.body) == (202, b"")
    path = opened.headers["Location"].removeprefix("/api/v1")
    for who, call, status in ((operator, "freeze", "frozen"), (operator, "unfreeze", "open")):
        changed = await who.post(f"{path}/{call}", prefer="respond-async")
        assert (changed.status, changed.body) == (202, b"")
        assert changed.headers["Location"] == f"/api/v1{path}"
        assert (await zoe.get(f"{path}?consistency=strong", worker=1)).document["status"] == status


@pytest.mark.parametrize(
    ("prefer", "applied"),
    [
        ("wait=10", "wait=10"),
        ("wait=600", "wait=30"),
        ('wait="7"', "wait=7"),
        ("Wait = 7", "wait=7"),
        ("handling=lenient, wait=7", "wait=7"),
        ("wait=-1", None),
        ("wait=soon", None),
        ("wait=1.5", None),
        ("wait", None),
        ("respond-asynchronously", None),
        ("return=minimal", None),
        (";;,,=", None),
        ("", None),
    ],
)
async def test_a_preference_is_honoured_or_ignored(zoe: ApiClient, prefer: str, applied: str | None) -> None:
    reply = await zoe.deposit(await zoe.wallet(), 1, prefer=prefer)
    assert (reply.status, reply.headers["Preference-Applied"]) == (201, applied)


# Lists.


async def test_transactions_are_listed_by_wallet_status_and_kind(zoe: ApiClient, max_: ApiClient) -> None:
    mine, other, theirs = await zoe.wallet(), await zoe.wallet(), await max_.wallet()
    replies = [
        await zoe.deposit(mine, 100),
        await zoe.transfer(mine, theirs, 10),
        await zoe.transfer(mine, other, 20),
        await max_.transfer(theirs, mine, 5),
        await zoe.withdraw(mine, 1),
    ]
    done = [reply.document for reply in replies]
    assert refusal(await zoe.withdraw(mine, 1000)) == (422, "insufficient_funds")
    listed = await until(lambda: zoe.all_of("/transactions"), lambda found: len(found) == 6)
    refused, *completed = listed
    for found, expected in zip(completed, reversed(done), strict=True):
        assert found == {name: expected[name] for name in TRANSACTION_FIELDS}
    assert (refused["status"], refused["failure"]["code"]) == ("failed", "insufficient_funds")
    withdrawal, back, inner, sent, deposit = completed
    for query, found in (
        (f"wallet_id={mine}", listed),
        (f"wallet_id={other}", [inner]),
        (f"wallet_id={theirs}", [back, sent]),
        (f"wallet_id={uuid4()}", []),
        ("status=failed", [refused]),
        ("status=pending", []),
        ("kind=deposit", [deposit]),
        ("kind=withdrawal", [refused, withdrawal]),
        (f"kind=transfer&wallet_id={mine}&status=completed", [back, inner, sent]),
    ):
        assert await zoe.all_of(f"/transactions?{query}") == found, query
        assert await zoe.all_of(f"/transactions?{query}", limit=1) == found, query
    assert await max_.all_of("/transactions") == [back, sent]
    assert await max_.all_of(f"/transactions?wallet_id={mine}") == [back, sent]


async def test_an_operator_sees_the_transactions_of_all(
    zoe: ApiClient, max_: ApiClient, operator: ApiClient
) -> None:
    first = (await zoe.deposit(await zoe.wallet(), 1)).document["id"]
    second = (await max_.deposit(await max_.wallet(), 1)).document["id"]

    async def look() -> list[str]:
        page = (await operator.get("/transactions?kind=deposit&limit=2")).document
        return [str(each["id"]) for each in page["data"]]

    await until(look, lambda found: found == [second, first])


@pytest.mark.parametrize("by_wallet", [True, False])
async def test_pages_are_whole_while_more_is_moved(zoe: ApiClient, by_wallet: bool) -> None:
    source, target = await zoe.wallet(100), await zoe.wallet()
    path = f"/transactions?kind=transfer{f'&wallet_id={source}' if by_wallet else ''}"
    before = [(await zoe.transfer(source, target, 1)).document["id"] for _ in range(10)]
    await until(lambda: zoe.all_of(path), lambda found: len(found) == 10)
    page = (await zoe.get(f"{path}&limit=3")).document
    more = asyncio.gather(*(zoe.transfer(source, target, 1, worker=n % 2) for n in range(20)))
    seen = page["data"]
    while page["has_more"]:
        page = (await zoe.get(f"{path}&limit=3&cursor={page['next_cursor']}", worker=1)).document
        seen += page["data"]
    assert [each["id"] for each in seen] == before[::-1]
    after = [reply.document["id"] for reply in await more]
    whole = await until(lambda: zoe.all_of(path, limit=7), lambda found: len(found) == 30)
    assert {each["id"] for each in whole} == {*before, *after}
