"""Statements that many ask for at once: each user's one after the other, all in short pieces, and none for ever."""

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import pytest

from mercuria.config import current_settings
from mercuria.domain.wallet import Wallet
from mercuria.projections.ledger.queries import StatementLine, WalletState
from mercuria.tables import registration
from mercuria.web import point_in_time, statements
from mercuria.web.context import MAX_WAITING_STATEMENTS, Context
from mercuria.web.statements import Statement
from mercuria.web.turns import TooManyError, Turn, Turns
from mercuria.worker import App
from tests.web.api_client import ApiClient, refusal, until
from tests.web.wire import connect

ANN, BEN = uuid4(), uuid4()
ID = UUID(int=7)
PIECES = 3


# Turns.


async def test_a_users_turns_come_one_after_the_other_in_their_order_and_hold_up_nobody_else() -> None:
    turns = Turns(waiting=3, patience_s=60)
    first, others = await turns.take(ANN), await turns.take(BEN)
    came: list[int] = []

    async def ask(number: int) -> Turn:
        turn = await turns.take(ANN)
        came.append(number)
        return turn

    asked = [asyncio.create_task(ask(number)) for number in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(TooManyError):
        await turns.take(ANN)
    first.end()
    first.end()
    for number, task in enumerate(asked):
        turn = await task
        assert came == [*range(number + 1)]
        turn.end()
    others.end()
    # Nothing is kept of those who have gone.
    assert not turns._asked and not turns._of_users


async def test_a_turn_that_does_not_come_is_given_up_and_keeps_no_place() -> None:
    turns = Turns(waiting=1, patience_s=0.01)
    first = await turns.take(ANN)
    for _ in range(3):
        with pytest.raises(TooManyError):
            await turns.take(ANN)
    cancelled = asyncio.create_task(turns.take(ANN))
    await asyncio.sleep(0)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    first.end()
    (await turns.take(ANN)).end()
    assert not turns._asked and not turns._of_users


# Pieces.


def line(number: int) -> StatementLine:
    """Return the change that leads to a balance."""
    return StatementLine(
        offset=number,
        occurred_at_ms=number,
        kind="deposit",
        transaction_status="completed",
        transaction_id=UUID(int=number),
        counterparty_id=None,
        change=1,
        balance=number,
        reference="Salary; for November",
    )


def long_statement() -> Statement:
    wallet = Wallet(ID, ANN, "EUR", 0, 0, 0, "open", 1, {}, 0, 0)
    lines = PIECES * point_in_time.LINES_AT_ONCE
    return Statement(wallet, 0, 1, 0, lines, WalletState(), WalletState(balance=lines))


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let lines be there at once; return how many were made without anything else having had its turn."""
    between_turns: list[int] = [0]

    async def lines_between(
        _context: Context, _id: UUID, start: int, end: int
    ) -> AsyncIterator[list[StatementLine]]:
        for first in range(start, end, point_in_time.LINES_AT_ONCE):
            yield [line(number + 1) for number in range(first, first + point_in_time.LINES_AT_ONCE)]

    def count(real: object) -> object:
        def counted(*arguments: object) -> object:
            between_turns[-1] += 1
            return real(*arguments)  # type: ignore[operator]

        return counted

    monkeypatch.setattr(statements, "lines_between", lines_between)
    for name in ("_line_row", "statement_line_body"):
        monkeypatch.setattr(statements, name, count(getattr(statements, name)))
    return between_turns


@pytest.fixture
def context() -> Context:
    """Return what views share. Locks belong to the event loop that first uses them, and each test has its own."""
    app = App(current_settings())
    return Context(app, registration.register(app))


async def as_json(context: Context) -> None:
    answer = await statements._as_json(context, long_statement())
    assert len(answer.content.lines) == PIECES * point_in_time.LINES_AT_ONCE


async def as_csv(context: Context) -> None:
    pieces = [each async for each in statements._csv_pieces(context, long_statement(), Turn(lambda: None))]
    assert b"".join(pieces).count(b"\r\n") == 3 + PIECES * point_in_time.LINES_AT_ONCE


@pytest.mark.parametrize("ask", [as_json, as_csv])
async def test_all_else_has_its_turn_between_two_pieces_however_many_statements_are_made(
    context: Context, made: list[int], ask: object
) -> None:
    async def all_else() -> None:
        while True:
            await asyncio.sleep(0)
            made.append(0)

    going_on = asyncio.create_task(all_else())
    await asyncio.gather(*(ask(context) for _ in range(30)))  # type: ignore[operator]
    going_on.cancel()
    assert sum(made) == 30 * PIECES * point_in_time.LINES_AT_ONCE
    assert max(made) <= point_in_time.LINES_AT_ONCE <= 200


async def test_a_short_statement_does_not_wait_for_the_end_of_long_ones(
    context: Context, made: list[int]
) -> None:
    ended: list[str] = []
    long = [asyncio.create_task(as_csv(context)) for _ in range(5)]
    for task in long:
        task.add_done_callback(lambda _: ended.append("long"))
    short = long_statement()._replace(
        end=point_in_time.LINES_AT_ONCE, closing=WalletState(balance=point_in_time.LINES_AT_ONCE)
    )
    await asyncio.sleep(0)
    assert made[0] == point_in_time.LINES_AT_ONCE, "the first of them has begun"
    await statements._as_json(context, short)
    ended.append("short")
    await asyncio.gather(*long)
    assert ended[0] == "short"


# Over HTTP.


async def test_a_user_who_asks_for_many_statements_at_once_gets_some_and_is_asked_to_wait_for_others(
    zoe: ApiClient, max_: ApiClient
) -> None:
    wallet_id, theirs = await zoe.wallet(100), await max_.wallet(100)
    await until(lambda: zoe.get(f"/wallets/{wallet_id}/statement"), lambda reply: reply.status == 200)
    replies = await asyncio.gather(
        *(zoe.get(f"/wallets/{wallet_id}/statement") for _ in range(30)),
        *(max_.get(f"/wallets/{theirs}/statement") for _ in range(MAX_WAITING_STATEMENTS)),
    )
    assert {reply.status for reply in replies[30:]} == {200}
    assert {reply.status for reply in replies[:30]} <= {200, 429}
    assert sum(reply.status == 200 for reply in replies[:30]) > MAX_WAITING_STATEMENTS
    for reply in replies[:30]:
        if reply.status == 429:
            assert refusal(reply) == (429, "too_many_statements")
            assert int(reply.headers["Retry-After"]) > 0


async def test_a_client_that_goes_away_leaves_its_turn_to_the_next(zoe: ApiClient) -> None:
    wallet_id = await zoe.wallet(100)
    path = f"/wallets/{wallet_id}/statement?format=csv"
    await until(lambda: zoe.get(path.removesuffix("?format=csv")), lambda reply: reply.status == 200)
    for _ in range(2 * MAX_WAITING_STATEMENTS):
        head = await zoe.ask("HEAD", path)
        assert head.status == 200
        async with connect(zoe.ports[0]) as wire:
            await wire.send(
                f"GET /api/v1{path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {zoe.token}\r\n\r\n".encode()
            )
    await until(lambda: zoe.ask("HEAD", path), lambda reply: reply.status == 200)
