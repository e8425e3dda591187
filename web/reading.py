"""Reading: where a wallet or a transaction is looked for, and how sure the answer is.

A wallet is known best by the worker that owns its partition: here in memory, or at another worker over HTTP. Redis
answers for the others, and PostgreSQL where nobody else does. A transaction is in Redis as soon as it is answered, and
in PostgreSQL a moment later; nobody says that there is none before PostgreSQL has all that the log held when asked.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import count
from uuid import UUID

import aiohttp
import msgspec
from aiokafka.errors import KafkaError
from faust.types import TP
from msgspec import Struct

from mercuria.adapters.coalescing import Coalescer
from mercuria.adapters.history import History
from mercuria.adapters.idempotency import Keys
from mercuria.adapters.postgres import DatabaseUnavailable
from mercuria.adapters.problems import Problem
from mercuria.adapters.redis import UNAVAILABLE
from mercuria.app import app, cache, database, redis, settings
from mercuria.domain.rejections import Code
from mercuria.domain.transaction import Transaction
from mercuria.domain.wallet import Wallet
from mercuria.streams.routing import Homes
from mercuria.tables.balances import balances
from mercuria.topics import BALANCES_CHANGELOG, WALLET_COMMANDS, WALLET_EVENTS
from mercuria.web.endpoint import Answer, Call

CAUGHT_UP_WITHIN_S = 3.0
OWNER_ANSWERS_WITHIN_S = 3.0
LOOK_EVERY_S = 0.01
LOOKS_BEFORE_ASKING = 50
FROM_OWNER = "X-Mercuria-Asks-Owner"
"""A worker sends this header to the one that it takes for a wallet's owner; who is not says so."""

homes = Homes(settings.partitions)
history = History(database)
keys = Keys(redis, settings.receipts_days * 86_400, history.used_before)


@app.task  # type: ignore[untyped-decorator]
async def begin_keys() -> None:
    """Say whether Redis has known all Idempotency-Keys from the beginning: it has where nothing has moved yet."""
    with suppress(DatabaseUnavailable):
        page = await history.transactions(limit=1)
        await keys.begin(is_new=page is not None and not page.items)


class _Code(Struct):
    """What tells one problem from another."""

    code: str


# Wallets.


async def find_wallet(call: Call, wallet_id: UUID) -> Wallet | Answer | Problem:
    """Return a wallet as it was a moment ago at the most, or the answer of the worker that owns it."""
    partition = homes.of(wallet_id).partition
    if is_mine(partition):
        return _own(partition, wallet_id) or Problem(Code.WALLET_NOT_FOUND)
    if FROM_OWNER in call.request.headers:
        return Problem("wallets_unavailable")
    return (
        await _cached(partition, wallet_id)
        or await _ask_owner(call, partition)
        or await _in_history(wallet_id)
    )


async def find_wallet_now(call: Call, wallet_id: UUID) -> Wallet | Answer | Problem:
    """Return a wallet after all commands that Kafka had for it when this was asked."""
    partition = homes.of(wallet_id).partition
    if not is_mine(partition):
        asked = FROM_OWNER in call.request.headers or await _ask_owner(call, partition)
        return asked if isinstance(asked, Answer | Problem) else Problem("wallets_unavailable")
    try:
        async with asyncio.timeout(CAUGHT_UP_WITHIN_S):
            await _decided(partition)
            async with balances.lock(partition):
                if is_mine(partition):
                    return _own(partition, wallet_id) or Problem(Code.WALLET_NOT_FOUND)
    except (TimeoutError, KafkaError):
        pass
    return Problem("wallets_unavailable")


def is_mine(partition: int) -> bool:
    """Tell whether this worker decides for a partition now, so that what it has in memory counts."""
    return (
        app.locks.is_held(partition)
        and balances.store.is_open(partition)
        and not app.rebalancing
        and not app.in_recovery
    )


def owner_url(partition: int) -> str | None:
    """Return where the worker answers that owns a partition, as the consumer group has it."""
    for url, topics in app.assignor.tables_metadata().items():
        if partition in topics.get(BALANCES_CHANGELOG, ()):
            return url
    return None


def _own(partition: int, wallet_id: UUID) -> Wallet | None:
    return balances.wallets(partition, [wallet_id])[wallet_id.int]


async def _decided(partition: int) -> None:
    """Return when everything is decided that is in a partition of the command topic now."""
    end = (await app.log_ends.ends(WALLET_COMMANDS, [partition]))[partition]
    for look in count(1):
        if balances.position(partition).offset >= end - 1:
            return
        # The last records may be the marks of a transaction, which nobody decides. Asking the consumer takes long.
        if look % LOOKS_BEFORE_ASKING == 0 and await _is_read(partition, end):
            return
        await asyncio.sleep(LOOK_EVERY_S)


async def _is_read(partition: int, end: int) -> bool:
    position = await app.consumer.position(TP(WALLET_COMMANDS, partition))
    return (position or 0) >= end and not balances.lock(partition).locked()


async def _cached(partition: int, wallet_id: UUID) -> Wallet | None:
    try:
        return await cache.wallet(partition, wallet_id)
    except UNAVAILABLE:
        return None


async def _ask_owner(call: Call, partition: int) -> Answer | Problem | None:
    """Have the worker answer that owns a partition; None where it does not, or says that it is another one's."""
    url = owner_url(partition)
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


async def _in_history(wallet_id: UUID) -> Wallet | Problem:
    try:
        found = await history.wallet(wallet_id)
    except DatabaseUnavailable:
        found = None
    # A wallet that was just opened may be missing there: that there is none, only its owner can say.
    return found or Problem("wallets_unavailable")


# Transactions.


async def settled_transaction(transaction_id: UUID) -> Transaction | None:
    """Return a transaction if it is known to have ended."""
    found = await _remembered(transaction_id)
    if found is None or found.status == "pending":
        with suppress(DatabaseUnavailable):
            found = await history.transaction(transaction_id) or found
    return found if found is not None and found.status != "pending" else None


async def find_transaction(transaction_id: UUID) -> Transaction | Problem:
    """Return a transaction. That there is none is only said when PostgreSQL has all that the log held when asked."""
    remembered = await _remembered(transaction_id)
    if remembered is not None and remembered.status != "pending":
        return remembered
    try:
        found = await history.transaction(transaction_id) or remembered
        if found is None and await _is_caught_up(None):
            return await history.transaction(transaction_id) or Problem("transaction_not_found")
    except DatabaseUnavailable:
        return remembered or Problem("database_unavailable")
    return found or Problem("not_known_yet")


async def _remembered(transaction_id: UUID) -> Transaction | None:
    try:
        return await cache.transaction(transaction_id)
    except UNAVAILABLE:
        return None


async def _catch_up(callers: Sequence[None]) -> Sequence[bool]:
    """Wait until PostgreSQL has what is in the command log now; one wait serves all who asked before it began."""
    try:
        async with asyncio.timeout(CAUGHT_UP_WITHIN_S):
            await _all_decided()
            ends = await app.log_ends.ends(WALLET_EVENTS, range(settings.partitions))
            is_there = await history.caught_up(ends, CAUGHT_UP_WITHIN_S)
    except (TimeoutError, KafkaError):
        is_there = False
    return [is_there] * len(callers)


async def _all_decided() -> None:
    """Return when everything is decided that is in the command topic now, whoever decides it."""
    ends = await app.log_ends.ends(WALLET_COMMANDS, range(settings.partitions))
    others: Mapping[int, int] = {}
    while not all(_decided_up_to(partition, others) >= end for partition, end in ends.items()):
        others = await app.log_ends.committed(WALLET_COMMANDS)
        if all(_decided_up_to(partition, others) >= end for partition, end in ends.items()):
            return
        await asyncio.sleep(10 * LOOK_EVERY_S)


def _decided_up_to(partition: int, others: Mapping[int, int]) -> int:
    """Return the end of what is decided: what this worker has decided, or what others say they have."""
    return balances.position(partition).offset + 1 if is_mine(partition) else others.get(partition, 0)


_is_caught_up: Coalescer[None, bool] = Coalescer(_catch_up)
