"""Idempotency keys: a request that comes again has no second effect and gets its first answer, whoever is asked."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from mercuria.embedded.stack import Stack
from mercuria.redis.client import connect
from tests.web.api_client import ApiClient, ApiClients, refusal, until

SAME_REQUEST = "X-Request-Id: same"
"""A problem names the request that it answers, so that those of two requests would never be the same."""
REUSED = (422, "command_id_reused")


class Town(NamedTuple):
    """Who asks, with wallets of theirs, and an operator."""

    zoe: ApiClient
    operator: ApiClient
    full: str
    empty: str


@pytest.fixture
async def town(clients: ApiClients) -> Town:
    """Return somebody with two wallets, in one of which there are 100 cents."""
    zoe = clients.user()
    return Town(zoe, clients.operator(), await zoe.wallet(100), await zoe.wallet())


@pytest.fixture
async def redis(live_stack: Stack) -> AsyncIterator[Redis]:
    """Return a connection to the stack's Redis."""
    client = connect(live_stack.env["MERCURIA_REDIS"])
    yield client
    await client.aclose()


def key() -> str:
    """Return a key that nobody has used."""
    return f"key-{secrets.token_hex(8)}"


# Each call, as a person sends it again: who, the path, the body, and the status of the answer.
Request = tuple[ApiClient, str, dict[str, Any], int]
CALLS: dict[str, Callable[[Town], Request]] = {
    "open": lambda town: (town.zoe, "/wallets", {"currency": "EUR", "metadata": {"a": "b"}}, 201),
    "deposit": lambda town: (town.zoe, f"/wallets/{town.full}/deposit", {"amount": 5, "reference": "r"}, 201),
    "withdraw": lambda town: (town.zoe, f"/wallets/{town.full}/withdraw", {"amount": 5}, 201),
    "transfer": lambda town: (town.zoe, "/transactions", transfer(town, town.empty, 5), 201),
    "freeze": lambda town: (town.operator, f"/wallets/{town.full}/freeze", {"reason": "r"}, 200),
    "close": lambda town: (town.zoe, f"/wallets/{town.empty}/close", {}, 200),
    "withdraw, refused": lambda town: (town.zoe, f"/wallets/{town.empty}/withdraw", {"amount": 5}, 422),
    "transfer, refused": lambda town: (town.zoe, "/transactions", transfer(town, town.empty, 101), 422),
    "transfer, refused by the receiver": lambda town: (
        town.zoe,
        "/transactions",
        transfer(town, str(uuid4()), 5),
        422,
    ),
}


def transfer(town: Town, target: str, amount: int) -> dict[str, Any]:
    """Return the body of a transfer."""
    return {"from_wallet_id": town.full, "to_wallet_id": target, "amount": amount}


# The same request.


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("worker", [0, 1])
async def test_the_same_request_gets_the_same_answer_and_has_no_second_effect(
    town: Town, name: str, worker: int
) -> None:
    who, path, body, status = CALLS[name](town)
    used = key()
    first = await who.post(path, body, SAME_REQUEST, key=used, worker=worker)
    assert (first.status, first.headers["Idempotent-Replayed"]) == (status, None)
    before = await versions(town)
    # It says what was so then, whatever has happened since.
    await town.operator.post(f"/wallets/{town.empty}/freeze")
    for at in (0, 1, worker):
        again = await who.post(path, body, SAME_REQUEST, key=used, worker=at)
        assert (again.status, again.headers["Idempotent-Replayed"]) == (status, "true")
        assert again.body == first.body
        for header in ("Location", "Content-Type"):
            assert again.headers[header] == first.headers[header]
    await town.operator.post(f"/wallets/{town.empty}/unfreeze")
    assert await versions(town) in (before, [before[0], before[1] + 2])


async def versions(town: Town) -> list[int]:
    """Return how often the town's wallets have changed."""
    shown = [await town.zoe.get(f"/wallets/{each}?consistency=strong") for each in (town.full, town.empty)]
    return [each.document["version"] for each in shown]


@pytest.mark.parametrize("name", CALLS)
async def test_requests_of_one_moment_get_one_answer(town: Town, name: str) -> None:
    for _ in range(3):
        who, path, body, status = CALLS[name](town)
        used, before = key(), await versions(town)
        replies = await asyncio.gather(
            *(who.post(path, body, SAME_REQUEST, key=used, worker=n % 2) for n in range(6))
        )
        assert {reply.status for reply in replies} == {status}, replies
        assert len({reply.body for reply in replies}) == 1
        assert [reply.headers["Idempotent-Replayed"] for reply in replies].count(None) == 1
        if name in ("freeze", "close"):
            return
        # Money that went and came back has changed a wallet twice.
        steps = {"open": 0, "transfer": 2, "transfer, refused by the receiver": 2}.get(
            name, int(status < 300)
        )
        assert sum(await versions(town)) - sum(before) == steps


async def test_many_keys_of_one_moment_have_one_effect_each(town: Town) -> None:
    used = [key() for _ in range(50)]
    replies = await asyncio.gather(
        *(town.zoe.withdraw(town.full, 1, key=used[n // 4], worker=n % 2) for n in range(200))
    )
    assert {reply.status for reply in replies} == {201}
    assert {len({reply.body for reply in replies[n : n + 4]}) for n in range(0, 200, 4)} == {1}
    assert len({reply.document["id"] for reply in replies}) == 50
    assert await town.zoe.balance(town.full) == 50


async def test_the_same_request_may_be_written_in_another_way(town: Town) -> None:
    path, used = f"/wallets/{town.full}/deposit", key()
    first = await town.zoe.post(path, b'{"amount": 5, "reference": "\xc3\xa9"}', key=used)
    again = await town.zoe.post(path, b'{"metadata":{},"reference":"\\u00e9","amount":5}', key=used)
    assert (first.status, again.status, again.body) == (201, 201, first.body)


async def test_names_in_another_order_are_the_same_request(town: Town) -> None:
    key_, path = key(), f"/wallets/{town.full}/deposit"
    metadata = '"metadata":{"invoice":"17","shop":"a"}'
    other = '"metadata":{"shop":"a","invoice":"17"}'
    first = await town.zoe.post(path, f'{{"amount":5,{metadata}}}'.encode(), key=key_)
    again = await town.zoe.post(path, f'{{{other},"amount":5}}'.encode(), key=key_)
    assert (first.status, again.status, again.headers["Idempotent-Replayed"]) == (201, 201, "true")
    assert again.body == first.body
    assert await town.zoe.balance(town.full) == 105
    changed = await town.zoe.post(path, b'{"amount":5,"metadata":{"invoice":"a","shop":"17"}}', key=key_)
    assert (changed.status, changed.document["code"]) == (422, "command_id_reused")


async def test_who_did_not_wait_gets_the_answer_by_asking_again(town: Town) -> None:
    who, path, body, status = CALLS["transfer"](town)
    used = key()
    promised = await who.post(path, body, key=used, prefer="respond-async")
    assert promised.status == 202
    answers = [await who.post(path, body, key=used, worker=worker) for worker in (0, 1)]
    for each in answers:
        assert (each.status, each.headers["Idempotent-Replayed"]) == (status, "true")
        assert each.headers["Location"] == promised.headers["Location"]
    assert answers[0].body == answers[1].body
    again = await who.post(path, body, key=used, prefer="respond-async")
    assert again.headers["Location"] == promised.headers["Location"]
    assert await who.balance(town.full) == 95


async def test_without_a_key_each_request_counts(town: Town) -> None:
    replies = [await town.zoe.deposit(town.full, 5) for _ in range(2)]
    assert len({reply.document["id"] for reply in replies}) == 2
    assert await town.zoe.balance(town.full) == 110


# Another request.


OTHERS: dict[str, Callable[[Town], tuple[str, dict[str, Any]]]] = {
    "another amount": lambda town: (f"/wallets/{town.full}/deposit", {"amount": 6, "reference": "r"}),
    "no reference": lambda town: (f"/wallets/{town.full}/deposit", {"amount": 5}),
    "another reference": lambda town: (f"/wallets/{town.full}/deposit", {"amount": 5, "reference": "R"}),
    "metadata": lambda town: (
        f"/wallets/{town.full}/deposit",
        {"amount": 5, "reference": "r", "metadata": {"a": "b"}},
    ),
    "another kind": lambda town: (f"/wallets/{town.full}/withdraw", {"amount": 5, "reference": "r"}),
    "a transfer": lambda town: ("/transactions", transfer(town, town.empty, 5)),
    "another wallet": lambda town: (f"/wallets/{town.empty}/deposit", {"amount": 5, "reference": "r"}),
    "closing": lambda town: (f"/wallets/{town.full}/close", {}),
    "closing another wallet": lambda town: (f"/wallets/{town.empty}/close", {}),
    "opening a wallet": lambda town: ("/wallets", {"currency": "EUR"}),
}


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("worker", [0, 1])
async def test_another_request_with_the_same_key_is_refused(town: Town, name: str, worker: int) -> None:
    used = key()
    body = {"amount": 5, "reference": "r"}
    first = await town.zoe.post(f"/wallets/{town.full}/deposit", body, key=used)
    before = await versions(town)
    path, other = OTHERS[name](town)
    for _ in range(2):
        assert refusal(await town.zoe.post(path, other, key=used, worker=worker)) == REUSED
    again = await town.zoe.post(f"/wallets/{town.full}/deposit", body, key=used, worker=worker)
    assert (again.status, again.body) == (201, first.body)
    assert await versions(town) == before


@pytest.mark.parametrize("worker", [0, 1])
async def test_the_key_that_opened_a_wallet_does_nothing_else(town: Town, worker: int) -> None:
    used, body = key(), {"currency": "EUR"}
    opened = await town.zoe.post("/wallets", body, key=used)
    path = opened.headers["Location"].removeprefix("/api/v1")
    for other, content in (
        ("/wallets", {"currency": "USD"}),
        ("/wallets", body | {"metadata": {"a": "b"}}),
        (f"{path}/deposit", {"amount": 5}),
        (f"/wallets/{town.full}/deposit", {"amount": 5}),
    ):
        assert refusal(await town.zoe.post(other, content, key=used, worker=worker)) == REUSED
    assert (await town.zoe.post("/wallets", body, key=used, worker=worker)).body == opened.body


async def test_of_two_requests_of_one_moment_one_is_refused(town: Town) -> None:
    for _ in range(10):
        used = key()
        replies = await asyncio.gather(
            *(town.zoe.deposit(each, 1, key=used, worker=n) for n, each in enumerate((town.full, town.empty)))
        )
        assert sorted(reply.status for reply in replies) == [201, 422]
    assert await town.zoe.balance(town.full) + await town.zoe.balance(town.empty) == 110


async def test_a_key_is_its_owners_alone(town: Town, max_: ApiClient) -> None:
    used, theirs = key(), await max_.wallet()
    mine = await town.zoe.deposit(town.full, 5, key=used)
    other = await max_.deposit(theirs, 5, key=used)
    assert (mine.status, other.status) == (201, 201)
    assert "Idempotent-Replayed" not in other.headers
    # Also where it names the same wallet: who may not use that gets nothing of the answer.
    assert refusal(await max_.deposit(town.full, 5, key=used)) == REUSED
    assert refusal(await max_.deposit(town.full, 5, key=key())) == (403, "not_wallet_owner")


async def test_keys_are_texts_of_up_to_255_characters(town: Town) -> None:
    for used in ("a", "A", "a b", "é".encode().hex(), "'; DROP TABLE wallets; --", "x" * 255, "x" * 254):
        replies = [await town.zoe.deposit(town.full, 1, key=used, worker=worker) for worker in (0, 1)]
        assert [reply.headers["Idempotent-Replayed"] for reply in replies] == [None, "true"]
    assert await town.zoe.balance(town.full) == 107


# Without what Redis remembers.


async def forget_keys(redis: Redis) -> None:
    """Take from Redis what it knows of keys, and since when it has known them."""
    async for name in redis.scan_iter("mercuria:idempotency:*", count=1000):
        await redis.delete(name)


@pytest.mark.parametrize("worker", [0, 1])
async def test_postgresql_knows_keys_that_redis_has_forgotten(town: Town, redis: Redis, worker: int) -> None:
    moving, opening, refused = key(), key(), key()
    await town.zoe.deposit(town.full, 5, key=moving)
    await town.zoe.post("/wallets", {"currency": "EUR"}, key=opening)
    await town.zoe.withdraw(town.full, 1000, key=refused)
    await until(lambda: town.zoe.all_of("/transactions"), lambda found: len(found) == 3)
    await until(lambda: town.zoe.all_of("/wallets"), lambda found: len(found) == 3)
    await forget_keys(redis)
    for used in (moving, opening, refused):
        for _ in range(2):
            reply = await town.zoe.deposit(town.empty, 5, key=used, worker=worker)
            assert refusal(reply) == REUSED
    again = await town.zoe.deposit(town.full, 5, key=moving, worker=worker)
    assert (again.status, again.headers["Idempotent-Replayed"]) == (201, "true")
    assert [await town.zoe.balance(each) for each in (town.full, town.empty)] == [105, 0]
