"""The ledger, the past and statements over HTTP: what people see, what they do not, and that it always adds up."""

import asyncio
import csv
import io
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from urllib.parse import quote
from uuid import UUID, uuid4

import psycopg2
import pytest

from mercuria.domain.ledger import entry_id
from mercuria.embedded.stack import Stack
from mercuria.web.statements import IncompleteError, breaking_off
from tests.web.api_client import ApiClient, ApiClients, Scene, refusal, until
from tests.web.wire import Reply, connect

FIELDS = [
    "id",
    "transaction_id",
    "account",
    "direction",
    "amount",
    "currency",
    "balance_after",
    "wallet_version",
    "occurred_at",
    "hash",
    "effective_at",
]
HIDDEN = ("id", "balance_after", "wallet_version", "hash")
FORMULA = '=HYPERLINK("http://example.com")'


async def entries_of(person: ApiClient, transaction: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the entries of a transaction, and check that it names them all."""
    reply = await person.get(f"/ledger/{transaction['id']}", worker=1)
    assert reply.status == 200, reply
    assert reply.document["transaction_id"] == transaction["id"]
    entries: list[dict[str, Any]] = reply.document["entries"]
    assert all(list(each) == FIELDS for each in entries)
    return entries


async def statement(person: ApiClient, wallet_id: str, query: str = "") -> dict[str, Any]:
    """Return a statement, and check that it adds up."""
    reply = await person.get(f"/wallets/{wallet_id}/statement{query}")
    assert reply.status == 200, reply
    found = reply.document
    balance = found["opening_balance"]
    for line in found["lines"]:
        balance += line["amount"]
        assert line["balance_after"] == balance
    assert balance == found["closing_balance"]
    return found


def moment(text: str, **later: int) -> str:
    """Return a moment of an answer, and some time more, as a query has it."""
    return quote((datetime.fromisoformat(text) + timedelta(**later)).isoformat())


# Entries.


async def test_each_kind_of_transaction_is_a_debit_and_a_credit(zoe: ApiClient) -> None:
    source, target = await zoe.wallet(), await zoe.wallet()
    deposit = (await zoe.deposit(source, 100)).document
    transfer = (await zoe.transfer(source, target, 40)).document
    withdrawal = (await zoe.withdraw(target, 15)).document
    for transaction, expected in (
        (deposit, [("external:deposits", "debit", None, None), (source, "credit", 100, 2)]),
        (transfer, [(source, "debit", 60, 3), (target, "credit", 40, 2)]),
        (withdrawal, [(target, "debit", 25, 3), ("external:withdrawals", "credit", None, None)]),
    ):
        entries = await entries_of(zoe, transaction)
        assert [
            (each["account"], each["direction"], each["balance_after"], each["wallet_version"])
            for each in entries
        ] == expected
        for each in entries:
            assert (each["amount"], each["currency"]) == (transaction["amount"], "EUR")
            assert each["occurred_at"] == transaction["completed_at"]
            assert UUID(each["id"]) == entry_id(bytes.fromhex(each["hash"]))


async def test_who_took_part_sees_both_entries_and_nothing_of_a_foreign_wallet(
    zoe: ApiClient, max_: ApiClient, operator: ApiClient
) -> None:
    source, target = await zoe.wallet(100), await max_.wallet(1000)
    transfer = (await zoe.transfer(source, target, 40)).document
    everything = await entries_of(operator, transfer)
    debit, credit = everything
    assert (debit["balance_after"], credit["balance_after"]) == (60, 1040)
    assert await entries_of(zoe, transfer) == [debit, credit | dict.fromkeys(HIDDEN)]
    assert await entries_of(max_, transfer) == [debit | dict.fromkeys(HIDDEN), credit]


async def test_who_took_no_part_sees_no_entries(clients: ApiClients, zoe: ApiClient) -> None:
    deposit = (await zoe.deposit(await zoe.wallet(), 1)).document
    assert refusal(await clients.user().get(f"/ledger/{deposit['id']}")) == (403, "not_yours")
    assert refusal(await zoe.get(f"/ledger/{uuid4()}")) == (404, "transaction_not_found")


async def test_a_transaction_that_failed_has_no_entries(zoe: ApiClient, max_: ApiClient) -> None:
    source, target = await zoe.wallet(100), await max_.wallet(currency="USD")
    refused = await zoe.transfer(source, target, 10, key="failed")
    assert refusal(refused) == (422, "currency_mismatch")
    (failed,) = await until(
        lambda: zoe.all_of(f"/transactions?wallet_id={source}&status=failed"), lambda found: len(found) == 1
    )
    assert await entries_of(zoe, failed) == []


async def test_the_ledger_lists_the_entries_of_the_callers_wallets(
    zoe: ApiClient, max_: ApiClient, operator: ApiClient
) -> None:
    euros, dollars, theirs = await zoe.wallet(), await zoe.wallet(currency="USD"), await max_.wallet()
    for amount in range(1, 6):
        await zoe.deposit(euros, amount)
        await zoe.deposit(dollars, amount)
    await zoe.transfer(euros, theirs, 7)
    listed = await until(lambda: zoe.all_of("/ledger", limit=4), lambda found: len(found) == 11)
    moments = [each["occurred_at"] for each in listed]
    assert moments == sorted(moments, reverse=True)
    assert {each["account"] for each in listed} == {euros, dollars}
    assert len({each["id"] for each in listed}) == 11
    for query, matches in (
        (f"wallet_id={euros}", lambda each: each["account"] == euros),
        ("currency=USD", lambda each: each["currency"] == "USD"),
        (f"currency=USD&wallet_id={euros}", lambda _: False),
        (f"from={moment(moments[4])}", lambda each: each["occurred_at"] >= moments[4]),
        (f"to={moment(moments[4])}", lambda each: each["occurred_at"] < moments[4]),
    ):
        expected = [each for each in listed if matches(each)]
        assert await zoe.all_of(f"/ledger?{query}", limit=3) == expected, query
        if "wallet_id" in query:
            assert await operator.all_of(f"/ledger?{query}", limit=3) == expected
    # Others go on meanwhile. An operator sees both sides, also the one outside.
    since = moment(min(moments))
    newest = await operator.all_of(f"/ledger?from={since}", limit=100)
    assert {each["id"] for each in listed} < {each["id"] for each in newest}
    assert "external:deposits" in {each["account"] for each in newest}


async def test_pages_of_entries_are_whole_while_more_is_entered(zoe: ApiClient) -> None:
    wallet_id = await zoe.wallet()
    for _ in range(8):
        await zoe.deposit(wallet_id, 1)
    await until(lambda: zoe.all_of("/ledger"), lambda found: len(found) == 8)
    first = (await zoe.get("/ledger?limit=3")).document
    more = asyncio.gather(*(zoe.deposit(wallet_id, 1, worker=n % 2) for n in range(10)))
    seen, page = list(first["data"]), first
    while page["has_more"]:
        page = (await zoe.get(f"/ledger?limit=3&cursor={page['next_cursor']}", worker=1)).document
        seen += page["data"]
    assert [each["wallet_version"] for each in seen] == list(range(9, 1, -1))
    assert {reply.status for reply in await more} == {201}


# The past.


async def test_a_wallet_is_shown_as_it_was(zoe: ApiClient, operator: ApiClient) -> None:
    opened = (await zoe.post("/wallets", {"currency": "EUR"})).document
    path = f"/wallets/{opened['id']}"
    states = [opened]
    for amount in (100, 20, 3):
        states.append((await zoe.deposit(opened["id"], amount)).document["wallet"])
    frozen = (await operator.post(f"{path}/freeze")).document
    states.append(frozen)
    # Of what happened in one millisecond, the last counts.
    moments = {each["updated_at"]: each for each in states}
    assert len(moments) > 1
    for before, after in pairwise(moments.values()):
        for query in (
            f"at={moment(before['updated_at'])}",
            f"at={moment(after['updated_at'], microseconds=-1)}&consistency=strong",
        ):
            assert (await zoe.get(f"{path}?{query}", worker=1)).document == before
    shown = await operator.get(f"{path}?at={moment(frozen['updated_at'])}")
    assert (shown.status, shown.document) == (200, frozen)
    too_early = moment(opened["created_at"], milliseconds=-1)
    assert refusal(await zoe.get(f"{path}?at={too_early}")) == (404, "wallet_not_open_yet")
    assert refusal(await zoe.get(f"{path}?at=2999-01-01")) == (422, "in_the_future")


# Statements.


async def test_a_statement_leads_from_one_balance_to_the_other(zoe: ApiClient, max_: ApiClient) -> None:
    wallet_id, theirs, dollars = await zoe.wallet(), await max_.wallet(100), await max_.wallet(currency="USD")
    salary = (
        await zoe.post(f"/wallets/{wallet_id}/deposit", {"amount": 250, "reference": "Salary"})
    ).document
    rent = (await zoe.transfer(wallet_id, theirs, 50, key="rent")).document
    assert refusal(await zoe.transfer(wallet_id, dollars, 30)) == (422, "currency_mismatch")
    back = (await max_.transfer(theirs, wallet_id, 5)).document
    whole = await statement(zoe, wallet_id)
    assert (whole["wallet_id"], whole["currency"], whole["opening_balance"]) == (wallet_id, "EUR", 0)
    assert [(each["kind"], each["amount"]) for each in whole["lines"]] == [
        ("deposit", 250),
        ("transfer", -50),
        ("transfer", -30),
        ("refund", 30),
        ("transfer", 5),
    ]
    lines = whole["lines"]
    assert [each["transaction_id"] for each in (*lines[:2], lines[4])] == [
        salary["id"],
        rent["id"],
        back["id"],
    ]
    assert lines[2]["transaction_id"] == lines[3]["transaction_id"]
    assert [each["counterparty_id"] for each in lines] == [None, theirs, dollars, dollars, theirs]
    assert [each["reference"] for each in lines] == ["Salary", None, None, None, None]
    # The same in two parts, which meet anywhere.
    for line in lines:
        middle = moment(line["occurred_at"])
        first = await statement(zoe, wallet_id, f"?to={middle}")
        second = await statement(zoe, wallet_id, f"?from={middle}")
        assert first["closing_balance"] == second["opening_balance"]
        assert first["lines"] + second["lines"] == lines


async def test_a_statement_adds_up_while_money_moves(zoe: ApiClient, max_: ApiClient) -> None:
    wallet_id, theirs = await zoe.wallet(1000), await max_.wallet(1000)
    moving = asyncio.gather(
        *(zoe.transfer(wallet_id, theirs, 1, worker=n % 2) for n in range(15)),
        *(max_.transfer(theirs, wallet_id, 2, worker=n % 2) for n in range(15)),
    )
    while not moving.done():
        await statement(zoe, wallet_id)
    assert {reply.status for reply in await moving} == {201}
    assert (await statement(zoe, wallet_id))["closing_balance"] == 1015


async def test_a_statement_has_all_that_was_answered_before_it_was_asked_for(zoe: ApiClient) -> None:
    wallet_id = await zoe.wallet()
    for deposits in range(1, 21):
        await asyncio.gather(*(zoe.deposit(wallet_id, 1, worker=n) for n in range(2)))
        assert (await statement(zoe, wallet_id))["closing_balance"] == 2 * deposits


async def test_a_statement_comes_as_csv_that_runs_nothing(zoe: ApiClient) -> None:
    wallet_id = await zoe.wallet(currency="KWD")
    for reference in (
        "Salary",
        FORMULA,
        'a "quoted", text\nof two lines',
        "@SUM(A1)",
        "Rent;=cmd|' /C calc'!A0",
    ):
        await zoe.post(f"/wallets/{wallet_id}/deposit", {"amount": 1050, "reference": reference})
    await zoe.withdraw(wallet_id, 50)
    reply = await as_csv(zoe, f"/wallets/{wallet_id}/statement?format=csv")
    assert (reply.status, reply.headers["Content-Type"]) == (200, "text/csv; charset=utf-8; header=present")
    today = datetime.now(UTC).date()
    assert reply.headers["Content-Disposition"] in [
        f'attachment; filename="statement-{wallet_id}-{since}-{today}.csv"'
        for since in (today, today - timedelta(days=1))
    ]
    assert reply.headers["X-Request-Id"] and reply.headers["X-Content-Type-Options"] == "nosniff"
    assert reply.body.count(b"\r\n") == 9
    assert reply.body.startswith(b"\xef\xbb\xbfoccurred_at,")
    opening, *lines, closing = csv.DictReader(io.StringIO(reply.body.decode("utf-8-sig"), newline=""))
    assert (opening["kind"], opening["balance_after"]) == ("opening_balance", "0")
    assert (closing["kind"], closing["balance_after"], closing["balance_after_decimal"]) == (
        "closing_balance",
        "5200",
        "5.200",
    )
    assert [each["reference"] for each in lines] == [
        "Salary",
        f"'{FORMULA}",
        'a "quoted", text\nof two lines',
        "'@SUM(A1)",
        "Rent;'=cmd|' /C calc'!A0",
        "",
    ]
    assert [each["amount"] for each in lines] == ["1050"] * 5 + ["-50"]
    assert (lines[-1]["amount_decimal"], lines[-1]["currency"]) == ("-0.050", "KWD")
    told = await statement(zoe, wallet_id)
    assert [each["transaction_id"] for each in lines] == [each["transaction_id"] for each in told["lines"]]
    head = await zoe.ask("HEAD", f"/wallets/{wallet_id}/statement?format=csv")
    assert (head.status, head.body) == (200, b"")


async def test_a_statement_that_cannot_be_read_to_its_end_breaks_off() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"second"
        raise IncompleteError("the last changes are missing.")

    sending = breaking_off(b"first", pieces())
    assert [await anext(sending), await anext(sending)] == [b"first", b"second"]
    with pytest.raises(ConnectionError):
        await anext(sending)


async def as_csv(person: ApiClient, path: str) -> Reply:
    """Ask for what comes in chunks."""
    async with connect(person.ports[0]) as wire:
        reply = await wire.ask("GET", f"/api/v1{path}", f"Authorization: Bearer {person.token}")
        assert reply.headers["Transfer-Encoding"] == "chunked", reply
        body = b""
        while size := int(await wire.reader.readline(), 16):
            body += await wire.reader.readexactly(size)
            assert await wire.reader.readline() == b"\r\n"
        return Reply(reply.status, reply.headers, body)


# While PostgreSQL is behind.


@contextmanager
def held_up(stack: Stack, stage: str) -> Iterator[None]:
    """Keep a stage from writing: another worker seems to write all its partitions."""
    with closing(psycopg2.connect(stack.postgres.url)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT FROM positions WHERE stage = %s FOR UPDATE", [stage])
        yield


async def test_what_is_not_entered_yet_is_not_said_to_have_no_entries(zoe: ApiClient, settled: Stack) -> None:
    wallet_id = await zoe.wallet()
    await entries_of(zoe, (await zoe.deposit(wallet_id, 1)).document)
    with held_up(settled, "ledger"):
        deposit = (await zoe.deposit(wallet_id, 1)).document
        assert refusal(await zoe.get(f"/ledger/{deposit['id']}")) == (503, "not_known_yet")
    assert len(await entries_of(zoe, deposit)) == 2


async def test_the_past_is_told_as_far_as_it_is_recorded(zoe: ApiClient, settled: Stack) -> None:
    wallet_id = await zoe.wallet()
    first = (await zoe.deposit(wallet_id, 1)).document["wallet"]
    path = f"/wallets/{wallet_id}"
    whole = await statement(zoe, wallet_id)
    with held_up(settled, "transactions"):
        last = (await zoe.deposit(wallet_id, 1)).document["wallet"]
        now = moment(last["updated_at"])
        asked = (f"{path}/statement", f"{path}/statement?format=csv", f"{path}?at={now}")
        for reply in await asyncio.gather(*map(zoe.get, asked)):
            assert refusal(reply) == (503, "not_known_yet")
        # The deposit is recorded, so everything before it is.
        before = moment(first["updated_at"])
        assert (await statement(zoe, wallet_id, f"?to={before}"))["closing_balance"] == 0
    shown = await zoe.get(f"{path}?at={now}")
    assert (shown.status, shown.document) == (200, last)
    assert (await statement(zoe, wallet_id))["lines"][:-1] == whole["lines"]


# Who may, and what is refused.


@pytest.mark.parametrize("path", ["/ledger?wallet_id={}", "/wallets/{}/statement", "/wallets/{}?at={now}"])
@pytest.mark.parametrize("worker", [0, 1])
async def test_who_may_see_what_happened_to_a_wallet(scene: Scene, path: str, worker: int) -> None:
    now = moment(datetime.now(UTC).isoformat())
    asked = path.format(scene.wallets["open"], now=now)
    for who in ("owner", "operator"):
        assert (await scene.clients[who].get(asked, worker=worker)).status == 200
    assert refusal(await scene.clients["stranger"].get(asked, worker=worker)) == (403, "not_wallet_owner")
    unknown = path.format(scene.wallets["unknown"], now=now)
    assert refusal(await scene.owner.get(unknown, worker=worker)) == (404, "wallet_not_found")


REFUSED = {
    "/ledger?from=yesterday": (400, "invalid_field"),
    "/ledger?from=2026-11-01T00:00:00": (400, "invalid_field"),
    "/ledger?to=2026-02-30": (400, "invalid_field"),
    "/ledger?from=2026-11-02&to=2026-11-01": (422, "invalid_period"),
    "/ledger?cursor=x": (400, "invalid_cursor"),
    "/ledger?account=external:deposits": (400, "unknown_field"),
    "/wallets/{}/statement?from=2026-11-01&to=2026-11-01": (422, "invalid_period"),
    "/wallets/{}/statement?from=2999-01-01": (422, "in_the_future"),
    "/wallets/{}/statement?format=pdf": (400, "invalid_field"),
    "/wallets/{}?at=now": (400, "invalid_field"),
}


@pytest.mark.parametrize("path", REFUSED)
async def test_what_is_refused(scene: Scene, path: str) -> None:
    assert refusal(await scene.owner.get(path.format(scene.wallets["open"]))) == REFUSED[path]
