"""Statements: how a wallet's balance came about in a period, as JSON or as CSV for spreadsheets.

The opening balance and all changes add up to the closing balance. Money on its way to another wallet has left
the balance, and a refund is a change of its own.
"""

import csv
import io
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from functools import partial
from typing import Any, Literal, NamedTuple, TypeVar, cast

import msgspec
from msgspec import Raw, Struct, field

from mercuria.domain.money import format_amount
from mercuria.domain.rejections import Code
from mercuria.domain.spreadsheets import BYTE_ORDER_MARK, cell
from mercuria.domain.wallet import Wallet
from mercuria.http.problems import Problem
from mercuria.postgres.database import DatabaseUnavailable
from mercuria.projections.ledger.queries import StatementLine, WalletState
from mercuria.timestamps import rfc3339
from mercuria.web.context import Context
from mercuria.web.endpoint import Answer, Call, Stream, endpoint
from mercuria.web.point_in_time import lines_between, place_of, recorded_wallet
from mercuria.web.read_routing import soon
from mercuria.web.representations import StatementBody, statement_kind, statement_line_body
from mercuria.web.timestamps import Period, Timestamp, now_ms, read_period
from mercuria.web.turns import TooManyError, Turn

MAX_LINES = {"json": 10_000, "csv": 100_000}
"""How many changes a statement may have: JSON is sent once it is complete, CSV while it is generated."""
ASK_AGAIN_AFTER_S = 5

CSV = "text/csv; charset=utf-8; header=present"
COLUMNS = (
    "occurred_at",
    "kind",
    "transaction_id",
    "counterparty_id",
    "amount",
    "balance_after",
    "currency",
    "amount_decimal",
    "balance_after_decimal",
    "reference",
    "effective_at",
)

logger = logging.getLogger(__name__)

_encode = msgspec.json.Encoder().encode

T = TypeVar("T")


class StatementQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Which period, and in which form: from the opening of the wallet until now, where nothing else is said."""

    from_: Timestamp | None = field(name="from", default=None)
    to: Timestamp | None = None
    format: Literal["json", "csv"] = "json"


class Statement(NamedTuple):
    """The parts of a statement: wallet, period, positions among the wallet's events, and balances."""

    wallet: Wallet
    since_ms: int
    until_ms: int
    start: int
    end: int
    opening: WalletState
    closing: WalletState


class IncompleteError(Exception):
    """Changes are missing, because the tables are being rebuilt.

    The part that was sent ends in the middle.
    """


@endpoint(
    "GET",
    "/api/v1/wallets/{wallet_id}/statement",
    query=StatementQuery,
    answers={200: StatementBody},
    other_types=("text/csv",),
    problems=(
        Code.WALLET_NOT_FOUND,
        Code.NOT_WALLET_OWNER,
        "invalid_period",
        "in_the_future",
        "statement_too_long",
        "too_many_statements",
        "not_known_yet",
        "database_unavailable",
    ),
)
async def get_statement(call: Call) -> Answer | Problem:
    """Show a wallet's balance at the beginning and the end of a period, and all its changes between, the oldest first.

    `from` is part of the period, `to` is not; one that has not come yet is now. As JSON, it has up to 10,000 lines; as
    CSV, up to 100,000, and its first and last lines have the balances. A `refund` is a transfer that came back. CSV
    begins with a byte order mark (U+FEFF, UTF-8: `EF BB BF`), by which spreadsheets know UTF-8. In a reference, an
    apostrophe stands before what a spreadsheet might take for a formula, wherever a cell may begin in it.

    A worker makes one statement at a time for each user. Up to four more wait, in their order; others are refused.
    """
    query = call.query
    period = read_period(query.from_, query.to)
    if isinstance(period, Problem):
        return period
    try:
        turn = await call.context.statement_turns.take(call.caller.id)
    except TooManyError:
        return Problem("too_many_statements", headers={"Retry-After": str(ASK_AGAIN_AFTER_S)})
    outcome: Answer | Problem | None = None
    try:
        outcome = await _statement(call, period, turn)
    except IncompleteError:
        outcome = Problem("not_known_yet")
    finally:
        # A stream ends its turn itself, when its last piece has been sent or the client has disconnected.
        if not (isinstance(outcome, Answer) and isinstance(outcome.content, Stream)):
            turn.end()
    return outcome


async def _statement(call: Call, period: Period, turn: Turn) -> Answer | Problem:
    wallet = await recorded_wallet(call, call.path["wallet_id"])
    if isinstance(wallet, Problem):
        return wallet
    found = await _find(call.context, wallet, period)
    if isinstance(found, Problem):
        return found
    if found.closing.version - found.opening.version > MAX_LINES[call.query.format]:
        return Problem("statement_too_long")
    if call.query.format == "csv":
        return await _as_csv(call.context, found, turn)
    return await _as_json(call.context, found)


async def _find(context: Context, wallet: Wallet, period: Period) -> Statement | Problem:
    now = now_ms()
    since_ms = wallet.created_at_ms if period.since_ms is None else period.since_ms
    until_ms = now + 1 if period.until_ms is None else min(period.until_ms, now + 1)
    if since_ms > now:
        return Problem("in_the_future")
    if since_ms >= until_ms:
        return Problem("invalid_period")
    end = await place_of(context, wallet.id, until_ms)
    if end is None:
        return Problem("not_known_yet")
    async with soon():
        start = await context.ledger.place(wallet.id, since_ms)
        opening = await context.ledger.state(wallet.id, start)
        closing = await context.ledger.state(wallet.id, end)
    return Statement(wallet, since_ms, until_ms, start, end, opening, closing)


async def _as_json(context: Context, statement: Statement) -> Answer:
    pieces = _made(
        context, statement, lambda lines: [Raw(_encode(statement_line_body(line))) for line in lines]
    )
    # Joining formatted pieces takes no time.
    lines = cast(Any, [line async for piece in pieces for line in piece])
    return Answer(
        StatementBody(
            wallet_id=statement.wallet.id,
            currency=statement.wallet.currency,
            from_=rfc3339(statement.since_ms),
            to=rfc3339(statement.until_ms),
            opening_balance=statement.opening.balance,
            closing_balance=statement.closing.balance,
            lines=lines,
        )
    )


async def _as_csv(context: Context, statement: Statement, turn: Turn) -> Answer:
    pieces = _csv_pieces(context, statement, turn)
    # If nothing can be read, the answer is a problem; after the first piece, an answer can only break off.
    first = await anext(pieces)
    name = f"statement-{statement.wallet.id}-{_day(statement.since_ms)}-{_day(statement.until_ms - 1)}.csv"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Answer(Stream(CSV, breaking_off(first, pieces)), headers=headers)


async def _made(
    context: Context, statement: Statement, make: Callable[[list[StatementLine]], T]
) -> AsyncIterator[T]:
    """Yield the formatted lines of a statement, in chunks.

    Raises:
        IncompleteError: the lines do not lead from the opening to the closing balance.
    """
    balance = statement.opening.balance
    turns = context.statement_turns
    reader = lines_between(context, statement.wallet.id, statement.start, statement.end)
    while True:
        async with turns.piece():
            lines = await anext(reader, None)
            if lines is None:
                break
            for line in lines:
                balance += line.change
                if balance != line.balance:
                    raise IncompleteError("a change is missing.")
            piece = await turns.make(partial(make, lines))
        # Yield outside the lock: a client may read as slowly as it likes.
        yield piece
    if balance != statement.closing.balance:
        raise IncompleteError("the last changes are missing.")


async def _csv_pieces(context: Context, statement: Statement, turn: Turn) -> AsyncIterator[bytes]:
    """Yield a statement as RFC 4180 CSV, in pieces.

    End the turn, even if the client does not read the rest.
    """
    currency = statement.wallet.currency
    opening = _balance_row("opening_balance", statement.since_ms, statement.opening, currency)
    closing = _balance_row("closing_balance", statement.until_ms, statement.closing, currency)
    # The header goes with the first lines: if they cannot be read, that is known before anything is sent.
    head = _csv_of([(BYTE_ORDER_MARK + COLUMNS[0], *COLUMNS[1:]), opening])
    try:
        async for piece in _made(
            context, statement, lambda lines: _csv_of(_line_row(each, currency) for each in lines)
        ):
            yield head + piece
            head = b""
        yield head + _csv_of([closing])
    finally:
        turn.end()


async def breaking_off(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield all pieces.

    Raises:
        ConnectionError: the rest cannot be read. The server then closes the connection, so that the client
            does not take the sent part for the whole.
    """
    yield first
    try:
        async for piece in rest:
            yield piece
    except (DatabaseUnavailable, IncompleteError) as error:
        logger.warning("A statement breaks off: %s", error)
        raise ConnectionAbortedError("The rest of the answer cannot be read.") from error


def _csv_of(rows: Iterable[tuple[object, ...]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def _balance_row(kind: str, at_ms: int, state: WalletState, currency: str) -> tuple[object, ...]:
    balance = state.balance
    return (
        *(rfc3339(at_ms), kind, None, None, None, balance, currency, None),
        *(format_amount(balance, currency), None, None),
    )


def _line_row(line: StatementLine, currency: str) -> tuple[object, ...]:
    return (
        rfc3339(line.occurred_at_ms),
        statement_kind(line),
        line.transaction_id,
        line.counterparty_id,
        line.change,
        line.balance,
        currency,
        format_amount(line.change, currency),
        format_amount(line.balance, currency),
        line.reference and cell(line.reference),
        line.effective_at,
    )


def _day(at_ms: int) -> str:
    return rfc3339(at_ms)[:10]
