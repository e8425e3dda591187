"""Read routing: where a wallet or a transaction is looked up, and how certain the answer is.

The worker that owns a wallet's partition has its newest state: in this worker's memory, or at another worker
over HTTP. If the owner does not answer, Redis does, and else PostgreSQL. A transaction is in Redis as soon as
it is answered, and in PostgreSQL a moment later. The answer "not found" is given only when PostgreSQL has
everything that the log held when asked.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from uuid import UUID

import aiohttp
import msgspec
from aiokafka.errors import KafkaError
from msgspec import Struct

from mercuria.domain.rejections import Code
from mercuria.domain.transaction import Transaction
from mercuria.domain.wallet import Wallet
from mercuria.http.problems import Problem
from mercuria.postgres.database import DatabaseUnavailable
from mercuria.redis.cache import Cached
from mercuria.redis.client import UNAVAILABLE
from mercuria.topics import BALANCES_CHANGELOG
from mercuria.web.context import Context
from mercuria.web.endpoint import Answer, Call
from mercuria.web.log_progress import CAUGHT_UP_WITHIN_S
from mercuria.worker import App

OWNER_ANSWERS_WITHIN_S = 3.0
DATABASE_ANSWERS_WITHIN_S = 3.0
FROM_OWNER = "X-Mercuria-Asks-Owner"
"""A worker sends this header to the presumed owner of a wallet.

A worker that is not the owner answers `wallets_unavailable`.
"""


@asynccontextmanager
async def soon() -> AsyncIterator[None]:
    """Limit how long the block waits for PostgreSQL to what a caller waits for a single item.

    Raises:
        DatabaseUnavailable: PostgreSQL does not answer in time.
    """
    try:
        async with asyncio.timeout(DATABASE_ANSWERS_WITHIN_S):
            yield
    except TimeoutError as error:
        raise DatabaseUnavailable("PostgreSQL does not answer soon.") from error


class _Code(Struct):
    """The code of a problem, which identifies it."""

    code: str


# Wallets.


def refused_to_show(call: Call, wallet: Wallet) -> Problem | None:
    """Return why the caller may not see a wallet, or None."""
    if call.caller.role == "operator" or wallet.owner_id == call.caller.id:
        return None
    return Problem(Code.NOT_WALLET_OWNER)


async def find_wallet(call: Call, wallet_id: UUID) -> Wallet | Answer | Problem:
    """Return a recent state of a wallet, at most a moment old, or the answer of the worker that owns it."""
    partition = call.context.partitioner.of(wallet_id).partition
    if call.context.log_progress.is_mine(partition):
        # Another worker may just have opened the wallet: it answers before it persists the wallet.
        return _own(call.context, partition, wallet_id) or await find_wallet_now(call, wallet_id)
    if FROM_OWNER in call.request.headers:
        return Problem("wallets_unavailable")
    cached = await _cached(call.context, partition, wallet_id)
    if cached is not None and cached.is_fresh:
        return cached.wallet
    return await _ask_owner(call, partition) or await _without_owner(call.context, wallet_id, cached)


async def find_wallet_now(call: Call, wallet_id: UUID) -> Wallet | Answer | Problem:
    """Return a wallet after all commands that Kafka held for it when this was called."""
    partition = call.context.partitioner.of(wallet_id).partition
    progress, balances = call.context.log_progress, call.context.balances
    if not progress.is_mine(partition):
        asked = FROM_OWNER in call.request.headers or await _ask_owner(call, partition)
        return asked if isinstance(asked, Answer | Problem) else Problem("wallets_unavailable")
    try:
        async with asyncio.timeout(CAUGHT_UP_WITHIN_S):
            offset = await progress.decided(partition)
            async with balances.lock(partition):
                # The partition may have moved away and come back meanwhile, with tables that lack the last moments.
                if progress.is_mine(partition) and balances.position(partition).offset >= offset:
                    return _own(call.context, partition, wallet_id) or Problem(Code.WALLET_NOT_FOUND)
    except (TimeoutError, KafkaError):
        pass
    return Problem("wallets_unavailable")


def owner_url(app: App, partition: int) -> str | None:
    """Return the address of the worker that owns a partition according to the consumer group."""
    for url, topics in app.assignor.tables_metadata().items():
        if partition in topics.get(BALANCES_CHANGELOG, ()):
            return url
    return None


def _own(context: Context, partition: int, wallet_id: UUID) -> Wallet | None:
    return context.balances.wallets(partition, [wallet_id])[wallet_id.int]


async def _cached(context: Context, partition: int, wallet_id: UUID) -> Cached | None:
    try:
        return await context.cache.wallet(partition, wallet_id)
    except UNAVAILABLE:
        return None


async def _ask_owner(call: Call, partition: int) -> Answer | Problem | None:
    """Have the owner of a partition answer; None if it does not, or if it is no longer the owner."""
    app = call.context.app
    url = owner_url(app, partition)
    if url is None or url == str(app.conf.canonical_url):
        return None
    headers = {"Authorization": call.request.headers["Authorization"], FROM_OWNER: "1"}
    try:
        async with asyncio.timeout(OWNER_ANSWERS_WITHIN_S):
            async with app.http_client.get(url + str(call.request.rel_url), headers=headers) as answer:
                content = await answer.read()
    except (aiohttp.ClientError, OSError, TimeoutError):
        return None
    if answer.status == 200:
        return Answer(msgspec.Raw(content))
    return None if answer.status >= 500 else Problem(msgspec.json.decode(content, type=_Code).code)


async def _without_owner(context: Context, wallet_id: UUID, cached: Cached | None) -> Wallet | Problem:
    """Return the newest state of a wallet that is known outside its owner."""
    found = None
    with suppress(DatabaseUnavailable):
        async with soon():
            found = await context.history.wallet(wallet_id)
    known = [each for each in (cached and cached.wallet, found) if each]
    # A wallet that was just opened may be missing in both: only its owner knows that a wallet does not exist.
    return max(known, key=lambda each: each.version) if known else Problem("wallets_unavailable")


# Transactions.


async def settled_transaction(context: Context, transaction_id: UUID) -> Transaction | None:
    """Return a transaction if it is known to have ended."""
    found = await _remembered(context, transaction_id)
    if found is None or found.status == "pending":
        with suppress(DatabaseUnavailable):
            async with soon():
                found = await context.history.transaction(transaction_id) or found
    return found if found is not None and found.status != "pending" else None


async def find_transaction(context: Context, transaction_id: UUID) -> Transaction | Problem:
    """Return a transaction.

    The answers "not found" and "not ended" are given only when PostgreSQL has everything that the log held
    when asked. If that takes too long, an accepted transaction is reported as pending.
    """
    remembered = await _remembered(context, transaction_id)
    if remembered is not None and remembered.status != "pending":
        return remembered
    try:
        async with soon():
            found = await context.history.transaction(transaction_id) or remembered
        if found is not None and found.status != "pending":
            return found
        is_sure = await context.log_progress.is_caught_up(None)
        async with soon():
            found = await context.history.transaction(transaction_id) or found
    except DatabaseUnavailable:
        return remembered or Problem("database_unavailable")
    return found or Problem("transaction_not_found" if is_sure else "not_known_yet")


async def _remembered(context: Context, transaction_id: UUID) -> Transaction | None:
    try:
        return await context.cache.transaction(transaction_id)
    except UNAVAILABLE:
        return None
