"""The past: wallets as they were, from what PostgreSQL has recorded, once that is all there is of a time."""

from collections.abc import AsyncIterator
from uuid import UUID

from mercuria.app import long_reads
from mercuria.domain.rejections import Code
from mercuria.domain.wallet import Wallet
from mercuria.http.problems import Problem
from mercuria.postgres.database import DatabaseUnavailable
from mercuria.projections.ledger.queries import Ledger, StatementLine, WalletState
from mercuria.web.endpoint import Call
from mercuria.web.reading import history, is_caught_up, refused_to_show, soon

LINES_AT_ONCE = 200
"""So many lines are read with one query, and made into text at once. All else that goes on waits for about 2 ms."""

ledger = Ledger(long_reads)


async def recorded_wallet(call: Call, wallet_id: UUID) -> Wallet | Problem:
    """Return a wallet as PostgreSQL has it, to its owner and to operators.

    That there is none is only said when PostgreSQL has all that the log held when asked.
    """
    is_sure = False
    try:
        async with soon():
            found = await history.wallet(wallet_id)
        if found is None:
            is_sure = await is_caught_up(None)
            async with soon():
                found = await history.wallet(wallet_id)
    except DatabaseUnavailable:
        return Problem("database_unavailable")
    if found is None:
        return Problem(Code.WALLET_NOT_FOUND if is_sure else "not_known_yet")
    return refused_to_show(call, found) or found


async def place_of(wallet_id: UUID, at_ms: int) -> int | None:
    """Return the place of a moment among a wallet's events; None while it is not sure that all of before are there.

    Raises:
        DatabaseUnavailable: PostgreSQL is away.
    """
    # First whether all is there, then the place: what comes between the two is behind the one or part of the other.
    async with soon():
        is_sure = await ledger.has_event_since(wallet_id, at_ms)
    if not is_sure and not await is_caught_up(None):
        return None
    async with soon():
        return await ledger.place(wallet_id, at_ms)


async def wallet_at(wallet: Wallet, before_ms: int) -> Wallet | Problem:
    """Return a wallet as it was right before a moment that has come."""
    try:
        place = await place_of(wallet.id, before_ms)
        if place is None:
            return Problem("not_known_yet")
        async with soon():
            state = await ledger.state(wallet.id, place)
    except DatabaseUnavailable:
        return Problem("database_unavailable")
    return _with(wallet, state)


async def lines_between(wallet_id: UUID, start: int, end: int) -> AsyncIterator[list[StatementLine]]:
    """Yield the changes of a wallet's balance between two places, some at a time.

    Raises:
        DatabaseUnavailable: PostgreSQL is away.
    """
    while True:
        async with soon():
            lines = await ledger.lines(wallet_id, start, end, LINES_AT_ONCE)
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
