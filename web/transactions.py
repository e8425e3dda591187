"""Transactions: transfers between wallets, and what became of every movement of money."""

from typing import Annotated
from uuid import UUID

from msgspec import Meta, Struct

from mercuria.domain.commands import EffectiveAt, Metadata, Text, Transfer
from mercuria.domain.events import TransactionStatus
from mercuria.domain.kinds import Kind
from mercuria.domain.rejections import Code
from mercuria.http.problems import Problem
from mercuria.web.decisions import answer_movement
from mercuria.web.endpoint import Answer, Call, endpoint
from mercuria.web.pages import PageQuery, page_of
from mercuria.web.read_routing import find_transaction
from mercuria.web.representations import Page, TransactionBody, transaction_body
from mercuria.web.wallets import Amount


class NewTransfer(Struct, frozen=True, forbid_unknown_fields=True):
    """Money to move from a wallet of the caller to another wallet."""

    from_wallet_id: UUID
    to_wallet_id: UUID
    amount: Amount
    reference: Text | None = None
    metadata: Metadata = {}
    effective_at: EffectiveAt | None = None


class TransactionsQuery(PageQuery, frozen=True, forbid_unknown_fields=True):
    """Which transactions to list."""

    wallet_id: Annotated[UUID | None, Meta(description="Of this wallet only.")] = None
    status: TransactionStatus | None = None
    kind: Kind | None = None


@endpoint(
    "POST",
    "/api/v1/transactions",
    body=NewTransfer,
    answers={201: TransactionBody, 202: TransactionBody},
    problems=(
        Code.AMOUNT_MUST_BE_POSITIVE,
        Code.AMOUNT_TOO_LARGE,
        Code.SOURCE_AND_TARGET_MUST_DIFFER,
        Code.WALLET_NOT_FOUND,
        Code.NOT_WALLET_OWNER,
        Code.WALLET_CLOSED,
        Code.WALLET_FROZEN,
        Code.CURRENCY_MISMATCH,
        Code.INSUFFICIENT_FUNDS,
        Code.BALANCE_WOULD_OVERFLOW,
    ),
    is_command=True,
)
async def transfer(call: Call) -> Answer | Problem:
    """Move money to another wallet."""
    return await answer_movement(
        call,
        Transfer,
        call.body.from_wallet_id,
        lambda transaction, _wallet: transaction_body(transaction),
        is_wallet_in_body=True,
        to_wallet_id=call.body.to_wallet_id,
    )


@endpoint(
    "GET",
    "/api/v1/transactions/{transaction_id}",
    answers={200: TransactionBody},
    problems=("transaction_not_found", "not_yours", "not_known_yet", "database_unavailable"),
)
async def get_transaction(call: Call) -> Answer | Problem:
    """Show a transaction, to those who took part in it and to operators."""
    found = await find_transaction(call.context, call.path["transaction_id"])
    if isinstance(found, Problem):
        return found
    if call.caller.role != "operator" and not found.is_visible_to(call.caller.id):
        return Problem("not_yours")
    return Answer(transaction_body(found))


@endpoint(
    "GET",
    "/api/v1/transactions",
    query=TransactionsQuery,
    answers={200: Page[TransactionBody]},
    problems=("invalid_cursor", "database_unavailable"),
)
async def list_transactions(call: Call) -> Answer | Problem:
    """List the caller's transactions, or all for an operator; the newest first."""
    query, caller = call.query, call.caller
    page = await call.context.history.transactions(
        person_id=None if caller.role == "operator" else caller.id,
        wallet_id=query.wallet_id,
        status=query.status,
        kind=query.kind,
        limit=query.limit,
        cursor=query.cursor,
    )
    return page_of(page, transaction_body)
