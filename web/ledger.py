"""The ledger: double entry. A completed transaction is a debit and a credit, and nothing else is entered."""

import asyncio
import time
from typing import Annotated
from uuid import UUID

from msgspec import Meta, field

from mercuria.domain.commands import CurrencyCode
from mercuria.domain.rejections import Code
from mercuria.domain.transaction import Transaction
from mercuria.http.problems import Problem
from mercuria.postgres.paging import LAST_MS
from mercuria.projections.ledger.queries import Recorded
from mercuria.web.context import Context
from mercuria.web.endpoint import Answer, Call, endpoint
from mercuria.web.pages import PageQuery, page_of
from mercuria.web.point_in_time import recorded_wallet
from mercuria.web.read_routing import find_transaction, soon
from mercuria.web.representations import EntryBody, Page, TransactionEntries, entry_body
from mercuria.web.timestamps import Timestamp, read_period

ENTERED_WITHIN_S = 3.0
LOOK_EVERY_S = 0.05


class LedgerQuery(PageQuery, frozen=True, forbid_unknown_fields=True):
    """Which entries to list."""

    wallet_id: Annotated[UUID | None, Meta(description="Of this wallet only.")] = None
    currency: CurrencyCode | None = None
    from_: Timestamp | None = field(name="from", default=None)
    to: Timestamp | None = None


@endpoint(
    "GET",
    "/api/v1/ledger",
    query=LedgerQuery,
    answers={200: Page[EntryBody]},
    problems=(
        Code.WALLET_NOT_FOUND,
        Code.NOT_WALLET_OWNER,
        "invalid_cursor",
        "invalid_period",
        "not_known_yet",
        "database_unavailable",
    ),
)
async def list_entries(call: Call) -> Answer | Problem:
    """List the entries of the caller's wallets, or all for an operator; the newest first.

    `from` is part of the period, `to` is not.
    """
    query, caller = call.query, call.caller
    period = read_period(query.from_, query.to)
    if isinstance(period, Problem):
        return period
    if query.wallet_id is not None:
        wallet = await recorded_wallet(call, query.wallet_id)
        if isinstance(wallet, Problem):
            return wallet
        if query.currency not in (None, wallet.currency):
            return Answer(Page([], has_more=False, next_cursor=None))
    page = await call.context.ledger.entries(
        owner_id=None if caller.role == "operator" else caller.id,
        wallet_id=query.wallet_id,
        currency=query.currency,
        since_ms=period.since_ms or 0,
        until_ms=LAST_MS if period.until_ms is None else period.until_ms,
        limit=query.limit,
        cursor=query.cursor,
    )
    return page_of(page, entry_body)


@endpoint(
    "GET",
    "/api/v1/ledger/{transaction_id}",
    answers={200: TransactionEntries},
    problems=("transaction_not_found", "not_yours", "not_known_yet", "database_unavailable"),
)
async def get_entries(call: Call) -> Answer | Problem:
    """Show the debit and the credit of a transaction, to those who took part in it and to operators.

    There are none of a transaction that is pending or failed. Of a wallet of another user, `balance_after` and
    `wallet_version` are null, and so are `hash` and `id`, from which a balance could be found by trying all.
    """
    found = await find_transaction(call.context, call.path["transaction_id"])
    if isinstance(found, Problem):
        return found
    caller = call.caller
    if caller.role != "operator" and not found.is_visible_to(caller.id):
        return Problem("not_yours")
    entries = await _entered(call.context, found)
    if not entries and found.status == "completed":
        return Problem("not_known_yet")
    foreign = set() if caller.role == "operator" else _foreign_accounts(found, caller.id)
    bodies = [entry_body(each, is_foreign=each.account in foreign) for each in entries]
    return Answer(TransactionEntries(found.id, bodies))


async def _entered(context: Context, transaction: Transaction) -> list[Recorded]:
    """Return the entries of a transaction. They are written a moment after it is completed."""
    if transaction.completed_at_ms is None:
        return []
    give_up_s = time.monotonic() + ENTERED_WITHIN_S
    while True:
        async with soon():
            entries = await context.ledger.entries_of_transaction(transaction.id, transaction.completed_at_ms)
        if entries or time.monotonic() > give_up_s:
            return entries
        await asyncio.sleep(LOOK_EVERY_S)


def _foreign_accounts(transaction: Transaction, person_id: UUID) -> set[str]:
    """Return the wallets of a transaction that belong to other users."""
    sides = (
        (transaction.from_wallet_id, transaction.from_owner_id),
        (transaction.to_wallet_id, transaction.to_owner_id),
    )
    return {str(wallet_id) for wallet_id, owner_id in sides if owner_id != person_id}
