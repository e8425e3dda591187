"""Point-in-time reads: past states of wallets from PostgreSQL, once it has all events of that time."""

from collections.abc import AsyncIterator
from uuid import UUID

from mercuria.domain.rejections import Code
from mercuria.domain.wallet import Wallet
from mercuria.http.problems import Problem
from mercuria.projections.ledger.queries import StatementLine, WalletState
from mercuria.web.context import Context
from mercuria.web.endpoint import Call
from mercuria.web.read_routing import refused_to_show, soon

LINES_AT_ONCE = 200
"""How many lines one query reads and one step formats. Other tasks wait for about 2 ms meanwhile."""


async def recorded_wallet(call: Call, wallet_id: UUID) -> Wallet | Problem:
    """Return a wallet as PostgreSQL has it, to its owner and to operators.

    The answer "not found" is given only when PostgreSQL has everything that the log held when asked.

    Raises:
        DatabaseUnavailable: PostgreSQL is unavailable.
    """
    is_sure = False
    async with soon():
        found = await call.context.history.wallet(wallet_id)
    if found is None:
        is_sure = await call.context.log_progress.is_caught_up(None)
        async with soon():
            found = await call.context.history.wallet(wallet_id)
    if found is None:
        return Problem(Code.WALLET_NOT_FOUND if is_sure else "not_known_yet")
    return refused_to_show(call, found) or found


async def place_of(context: Context, wallet_id: UUID, at_ms: int) -> int | None:
    """Return the position of a point in time among a wallet's events.

    Return None while it is uncertain whether PostgreSQL has all earlier events.

    Raises:
        DatabaseUnavailable: PostgreSQL is unavailable.
    """
    # Completeness is checked before the position is read: an event in between is after the position, or part of it.
    async with soon():
        is_sure = await context.ledger.has_event_since(wallet_id, at_ms)
    if not is_sure and not await context.log_progress.is_caught_up(None):
        return None
    async with soon():
        return await context.ledger.place(wallet_id, at_ms)


async def wallet_at(context: Context, wallet: Wallet, before_ms: int) -> Wallet | Problem:
    """Return a wallet as it was right before a time that has passed.

    Raises:
        DatabaseUnavailable: PostgreSQL is unavailable.
    """
    place = await place_of(context, wallet.id, before_ms)
    if place is None:
        return Problem("not_known_yet")
    async with soon():
        state = await context.ledger.state(wallet.id, place)
    return _with(wallet, state)


async def lines_between(
    context: Context, wallet_id: UUID, start: int, end: int
) -> AsyncIterator[list[StatementLine]]:
    """Yield the changes of a wallet's balance between two positions, in chunks.

    Raises:
        DatabaseUnavailable: PostgreSQL is unavailable.
    """
    while True:
        async with soon():
            lines = await context.ledger.lines(wallet_id, start, end, LINES_AT_ONCE)
        if lines:
            yield lines
        if len(lines) < LINES_AT_ONCE:
            return
        start = lines[-1].offset + 1


def _with(wallet: Wallet, state: WalletState) -> Wallet | Problem:
    if state.status is None:
        return Problem("wallet_not_open_yet")
    return Wallet(
        wallet.id,
        wallet.owner_id,
        wallet.currency,
        state.balance,
        0,
        wallet.overdraft_limit if state.overdraft_limit is None else state.overdraft_limit,
        state.status,
        state.version,
        wallet.metadata,
        wallet.created_at_ms,
        state.updated_at_ms,
    )
