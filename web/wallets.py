"""Wallets: opened, shown, listed, filled, emptied, limited, frozen and closed."""

from collections.abc import Callable
from typing import Annotated, Any, Literal
from uuid import UUID

from msgspec import Meta, Struct

from mercuria.domain.commands import (
    ClientCommand,
    CloseWallet,
    CurrencyCode,
    Deposit,
    EffectiveAt,
    FreezeWallet,
    Integer,
    Metadata,
    OpenWallet,
    SetLimits,
    Text,
    UnfreezeWallet,
    Withdraw,
)
from mercuria.domain.events import Status
from mercuria.domain.money import MINOR_DIGITS
from mercuria.domain.rejections import Code
from mercuria.domain.wallet import Wallet
from mercuria.http.problems import Problem
from mercuria.web.decisions import answer_change, answer_movement
from mercuria.web.endpoint import OPERATOR, Answer, Call, endpoint
from mercuria.web.pages import PageQuery, page_of
from mercuria.web.point_in_time import recorded_wallet, wallet_at
from mercuria.web.read_routing import find_wallet, find_wallet_now, refused_to_show
from mercuria.web.representations import (
    MovementBody,
    Page,
    WalletBody,
    WalletEventBody,
    movement_body,
    wallet_body,
    wallet_event_body,
)
from mercuria.web.timestamps import Timestamp, now_ms, read_timestamp_after

KnownCurrency = Annotated[CurrencyCode, Meta(extra_json_schema={"enum": sorted(MINOR_DIGITS)})]
"""The currencies that a wallet can have.

The type accepts others, because the refusal of a wallet is more specific.
"""

Amount = Annotated[
    Integer, Meta(extra_json_schema={"minimum": 1}, description="In minor units.", examples=[1050])
]


Limit = Annotated[
    Integer, Meta(extra_json_schema={"minimum": 0}, description="In minor units.", examples=[50000])
]


class NewWallet(Struct, frozen=True, forbid_unknown_fields=True):
    """A wallet to open. Only operators may set an overdraft limit, or open one for another user."""

    currency: KnownCurrency
    metadata: Metadata = {}
    overdraft_limit: Limit = 0
    owner_id: UUID | None = None


class Movement(Struct, frozen=True, forbid_unknown_fields=True):
    """Money to bring in or to take out."""

    amount: Amount
    reference: Text | None = None
    metadata: Metadata = {}
    effective_at: EffectiveAt | None = None


class Limits(Struct, frozen=True, forbid_unknown_fields=True):
    """How far below zero the balance may go from now on, and why."""

    overdraft_limit: Limit
    reason: Text | None = None


class Reason(Struct, frozen=True, forbid_unknown_fields=True):
    """Why the status of a wallet is changed."""

    reason: Text | None = None


class OneWallet(Struct, frozen=True, forbid_unknown_fields=True):
    """How sure to be about a wallet: `strong` waits until all commands are decided that Kafka has for it.

    `at` asks for the wallet as it was at a moment. That does not change, so `consistency` makes no difference to it.
    """

    consistency: Literal["eventual", "strong"] = "eventual"
    at: Timestamp | None = None


class WalletsQuery(PageQuery, frozen=True, forbid_unknown_fields=True):
    """Which wallets to list."""

    status: Status | None = None
    currency: CurrencyCode | None = None


_MOVE = (
    Code.AMOUNT_MUST_BE_POSITIVE,
    Code.AMOUNT_TOO_LARGE,
    Code.WALLET_NOT_FOUND,
    Code.NOT_WALLET_OWNER,
    Code.WALLET_CLOSED,
    Code.WALLET_FROZEN,
)


@endpoint(
    "POST",
    "/api/v1/wallets",
    body=NewWallet,
    answers={201: WalletBody, 202: None},
    problems=(
        Code.UNKNOWN_CURRENCY,
        Code.OVERDRAFT_LIMIT_OUT_OF_RANGE,
        Code.OPERATOR_REQUIRED,
        # The Idempotency-Key is used again after its receipt has expired.
        Code.WALLET_ALREADY_EXISTS,
    ),
    is_command=True,
)
async def open_wallet(call: Call) -> Answer | Problem:
    """Open a wallet."""
    body = call.body
    return await answer_change(
        call,
        OpenWallet,
        call.ids.new_wallet(),
        is_opening=True,
        owner_id=body.owner_id or call.caller.id,
        currency=body.currency,
        overdraft_limit=body.overdraft_limit,
        metadata=body.metadata,
    )


@endpoint(
    "GET",
    "/api/v1/wallets",
    query=WalletsQuery,
    answers={200: Page[WalletBody]},
    problems=("invalid_cursor", "database_unavailable"),
)
async def list_wallets(call: Call) -> Answer | Problem:
    """List the caller's own wallets, the newest first."""
    query = call.query
    page = await call.context.history.wallets(
        call.caller.id,
        status=query.status,
        currency=query.currency,
        limit=query.limit,
        cursor=query.cursor,
    )
    return page_of(page, wallet_body)


@endpoint(
    "GET",
    "/api/v1/wallets/{wallet_id}",
    query=OneWallet,
    answers={200: WalletBody},
    problems=(
        Code.WALLET_NOT_FOUND,
        Code.NOT_WALLET_OWNER,
        "wallet_not_open_yet",
        "in_the_future",
        "wallets_unavailable",
        "not_known_yet",
        "database_unavailable",
    ),
)
async def get_wallet(call: Call) -> Answer | Problem:
    """Show a wallet, to its owner and to operators.

    With `at`, it is shown as it was at that moment, after all that happened up to then; `consistency` makes no
    difference.
    """
    if call.query.at is not None:
        return await _wallet_at(call, call.query.at)
    find = find_wallet_now if call.query.consistency == "strong" else find_wallet
    found = await find(call, call.path["wallet_id"])
    if not isinstance(found, Wallet):
        return found
    return refused_to_show(call, found) or Answer(wallet_body(found))


@endpoint(
    "POST",
    "/api/v1/wallets/{wallet_id}/deposit",
    body=Movement,
    answers={201: MovementBody, 202: MovementBody},
    problems=(*_MOVE, Code.BALANCE_WOULD_OVERFLOW),
    is_command=True,
)
async def deposit(call: Call) -> Answer | Problem:
    """Bring money in from outside."""
    return await answer_movement(call, Deposit, call.path["wallet_id"], movement_body)


@endpoint(
    "POST",
    "/api/v1/wallets/{wallet_id}/withdraw",
    body=Movement,
    answers={201: MovementBody, 202: MovementBody},
    problems=(*_MOVE, Code.INSUFFICIENT_FUNDS),
    is_command=True,
)
async def withdraw(call: Call) -> Answer | Problem:
    """Take money out."""
    return await answer_movement(call, Withdraw, call.path["wallet_id"], movement_body)


@endpoint(
    "PUT",
    "/api/v1/wallets/{wallet_id}/limits",
    access=OPERATOR,
    body=Limits,
    answers={200: WalletBody, 202: None},
    problems=(Code.OVERDRAFT_LIMIT_OUT_OF_RANGE, Code.WALLET_NOT_FOUND, Code.WALLET_CLOSED),
    is_command=True,
)
async def set_limits(call: Call) -> Answer | Problem:
    """Change a wallet's overdraft limit.

    It counts for what comes. Where the balance is below it already, money may come in, and none may leave until the
    balance is above the limit again.
    """
    return await _change(call, SetLimits, overdraft_limit=call.body.overdraft_limit)


@endpoint(
    "POST",
    "/api/v1/wallets/{wallet_id}/freeze",
    access=OPERATOR,
    body=Reason,
    answers={200: WalletBody, 202: None},
    problems=(Code.WALLET_NOT_FOUND, Code.WALLET_CLOSED, Code.WALLET_FROZEN),
    is_command=True,
)
async def freeze_wallet(call: Call) -> Answer | Problem:
    """Let no money in or out until the wallet is unfrozen."""
    return await _change(call, FreezeWallet)


@endpoint(
    "POST",
    "/api/v1/wallets/{wallet_id}/unfreeze",
    access=OPERATOR,
    body=Reason,
    answers={200: WalletBody, 202: None},
    problems=(Code.WALLET_NOT_FOUND, Code.WALLET_CLOSED, Code.WALLET_NOT_FROZEN),
    is_command=True,
)
async def unfreeze_wallet(call: Call) -> Answer | Problem:
    """Let money move again."""
    return await _change(call, UnfreezeWallet)


@endpoint(
    "POST",
    "/api/v1/wallets/{wallet_id}/close",
    body=Reason,
    answers={200: WalletBody, 202: None},
    problems=(
        Code.WALLET_NOT_FOUND,
        Code.NOT_WALLET_OWNER,
        Code.WALLET_CLOSED,
        Code.WALLET_FROZEN,
        Code.WALLET_NOT_EMPTY,
    ),
    is_command=True,
)
async def close_wallet(call: Call) -> Answer | Problem:
    """Close the caller's own wallet, which must be empty."""
    return await _change(call, CloseWallet)


@endpoint(
    "GET",
    "/api/v1/wallets/{wallet_id}/events",
    query=PageQuery,
    answers={200: Page[WalletEventBody]},
    problems=(
        Code.WALLET_NOT_FOUND,
        Code.NOT_WALLET_OWNER,
        "invalid_cursor",
        "wallets_unavailable",
        "database_unavailable",
    ),
)
async def list_wallet_events(call: Call) -> Answer | Problem:
    """List what happened to a wallet, the newest first."""
    query = call.query
    found = await find_wallet(call, call.path["wallet_id"])
    if not isinstance(found, Wallet):
        return found
    if problem := refused_to_show(call, found):
        return problem
    page = await call.context.history.events(found.id, limit=query.limit, cursor=query.cursor)
    return page_of(page, wallet_event_body)


async def _wallet_at(call: Call, at: str) -> Answer | Problem:
    before_ms = read_timestamp_after("at", at)
    if isinstance(before_ms, Problem):
        return before_ms
    if before_ms > now_ms() + 1:
        return Problem("in_the_future")
    wallet = await recorded_wallet(call, call.path["wallet_id"])
    then = wallet if isinstance(wallet, Problem) else await wallet_at(call.context, wallet, before_ms)
    return then if isinstance(then, Problem) else Answer(wallet_body(then))


async def _change(call: Call, kind: Callable[..., ClientCommand], **fields: Any) -> Answer | Problem:
    return await answer_change(call, kind, call.path["wallet_id"], reason=call.body.reason, **fields)
