"""Read routing: where a wallet or a transaction is looked up, and how certain the answer is.

The worker that owns a wallet's partition has its newest state: in this worker's memory, or at another worker
over HTTP. If the owner does not answer, Redis does, and else PostgreSQL. A transaction is in Redis as soon as
it is answered, and in PostgreSQL a moment later. The answer "not found" is given only when PostgreSQL has
everything that the log held when asked.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from uuid import UUID

import aiohttp
import msgspec
from aiokafka.errors import KafkaError
from msgspec import Struct

from mercuria.app import app, balances, cache, database, long_reads, redis, settings
from mercuria.coalescing import Coalescer
from mercuria.domain.rejections import Code
from mercuria.domain.transaction import Transaction
from mercuria.domain.wallet import Wallet
from mercuria.http.problems import Problem
from mercuria.kafka.partitioning import Homes
from mercuria.postgres.database import DatabaseUnavailable
from mercuria.projections.wallets.queries import History
from mercuria.redis.cache import Cached
from mercuria.redis.client import UNAVAILABLE
from mercuria.redis.idempotency import Keys
from mercuria.tables.balance_rows import AppliedPosition, read_rows
from mercuria.topics import BALANCES_CHANGELOG, WALLET_COMMANDS, WALLET_EVENTS
from mercuria.web.endpoint import Answer, Call

CAUGHT_UP_WITHIN_S = 3.0
OWNER_ANSWERS_WITHIN_S = 3.0
DATABASE_ANSWERS_WITHIN_S = 3.0
KAFKA_ANSWERS_WITHIN_S = 3.0
LOOK_EVERY_S = 0.01
LOOKS_BEFORE_READING = 20
FROM_OWNER = "X-Mercuria-Asks-Owner"
"""A worker sends this header to the presumed owner of a wallet.

A worker that is not the owner answers `wallets_unavailable`.
"""

homes = Homes(settings.partitions)
history = History(database, long_reads)


async def is_new() -> bool:
    """Return whether the command topic is still empty; False if Kafka does not answer."""
    try:
        async with asyncio.timeout(KAFKA_ANSWERS_WITHIN_S):
            ends = await app.log_ends.ends(WALLET_COMMANDS, range(settings.partitions))
    except (TimeoutError, KafkaError):
        return False
    return not any(ends.values())


keys = Keys(redis, settings.receipts_days * 86_400, history.used_before, is_new)


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
    partition = homes.of(wallet_id).partition
    if is_mine(partition):
        # Another worker may just have opened the wallet: it answers before it persists the wallet.
        return _own(partition, wallet_id) or await find_wallet_now(call, wallet_id)
    if FROM_OWNER in call.request.headers:
        return Problem("wallets_unavailable")
    cached = await _cached(partition, wallet_id)
    if cached is not None and cached.is_fresh:
        return cached.wallet
    return await _ask_owner(call, partition) or await _without_owner(wallet_id, cached)


async def find_wallet_now(call: Call, wallet_id: UUID) -> Wallet | Answer | Problem:
    """Return a wallet after all commands that Kafka held for it when this was called."""
    partition = homes.of(wallet_id).partition
    if not is_mine(partition):
        asked = FROM_OWNER in call.request.headers or await _ask_owner(call, partition)
        return asked if isinstance(asked, Answer | Problem) else Problem("wallets_unavailable")
    try:
        async with asyncio.timeout(CAUGHT_UP_WITHIN_S):
            offset = await _decided(partition)
            async with balances.lock(partition):
                # The partition may have moved away and come back meanwhile, with tables that lack the last moments.
                if is_mine(partition) and balances.position(partition).offset >= offset:
                    return _own(partition, wallet_id) or Problem(Code.WALLET_NOT_FOUND)
    except (TimeoutError, KafkaError):
        pass
    return Problem("wallets_unavailable")


def is_mine(partition: int) -> bool:
    """Return whether this worker decides for a partition now, so that its state in memory is valid."""
    return (
        app.locks.is_held(partition)
        and balances.store.is_open(partition)
        and not app.rebalancing
        and not app.in_recovery
    )


def owner_url(partition: int) -> str | None:
    """Return the address of the worker that owns a partition according to the consumer group."""
    for url, topics in app.assignor.tables_metadata().items():
        if partition in topics.get(BALANCES_CHANGELOG, ()):
            return url
    return None


def _own(partition: int, wallet_id: UUID) -> Wallet | None:
    return balances.wallets(partition, [wallet_id])[wallet_id.int]


async def _decided(partition: int) -> int:
    """Wait until all that a partition of the command topic holds now is decided; return the decided offset.

    If the partition moves to another worker meanwhile, return at once: this worker no longer has its table.
    """
    end = (await app.log_ends.ends(WALLET_COMMANDS, [partition]))[partition]
    looks, before = 0, -1
    while is_mine(partition) and (offset := balances.position(partition).offset) < end - 1:
        looks = looks + 1 if offset == before else 0
        before = offset
        if looks == LOOKS_BEFORE_READING:
            if await _is_blank(partition, offset + 1, end):
                return offset
            looks = 0
        await asyncio.sleep(LOOK_EVERY_S)
    return end - 1


async def _is_blank(partition: int, start: int, end: int) -> bool:
    """Return whether the remaining records are transaction markers, which are not decided."""
    return await app.log_ends.is_blank(WALLET_COMMANDS, partition, start, end)


async def _cached(partition: int, wallet_id: UUID) -> Cached | None:
    try:
        return await cache.wallet(partition, wallet_id)
    except UNAVAILABLE:
        return None


async def _ask_owner(call: Call, partition: int) -> Answer | Problem | None:
    """Have the owner of a partition answer; None if it does not, or if it is no longer the owner."""
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


async def _without_owner(wallet_id: UUID, cached: Cached | None) -> Wallet | Problem:
    """Return the newest state of a wallet that is known outside its owner."""
    found = None
    with suppress(DatabaseUnavailable):
        async with soon():
            found = await history.wallet(wallet_id)
    known = [each for each in (cached and cached.wallet, found) if each]
    # A wallet that was just opened may be missing in both: only its owner knows that a wallet does not exist.
    return max(known, key=lambda each: each.version) if known else Problem("wallets_unavailable")


# Transactions.


async def settled_transaction(transaction_id: UUID) -> Transaction | None:
    """Return a transaction if it is known to have ended."""
    found = await _remembered(transaction_id)
    if found is None or found.status == "pending":
        with suppress(DatabaseUnavailable):
            async with soon():
                found = await history.transaction(transaction_id) or found
    return found if found is not None and found.status != "pending" else None


async def find_transaction(transaction_id: UUID) -> Transaction | Problem:
    """Return a transaction.

    The answers "not found" and "not ended" are given only when PostgreSQL has everything that the log held
    when asked. If that takes too long, an accepted transaction is reported as pending.
    """
    remembered = await _remembered(transaction_id)
    if remembered is not None and remembered.status != "pending":
        return remembered
    try:
        async with soon():
            found = await history.transaction(transaction_id) or remembered
        if found is not None and found.status != "pending":
            return found
        is_sure = await is_caught_up(None)
        async with soon():
            found = await history.transaction(transaction_id) or found
    except DatabaseUnavailable:
        return remembered or Problem("database_unavailable")
    return found or Problem("transaction_not_found" if is_sure else "not_known_yet")


async def _remembered(transaction_id: UUID) -> Transaction | None:
    try:
        return await cache.transaction(transaction_id)
    except UNAVAILABLE:
        return None


async def _catch_up(callers: Sequence[None]) -> Sequence[bool]:
    """Wait until PostgreSQL has everything that is in the command log now.

    One wait serves all callers that asked before it began.
    """
    try:
        async with asyncio.timeout(CAUGHT_UP_WITHIN_S):
            await _all_decided()
            ends = await app.log_ends.ends(WALLET_EVENTS, range(settings.partitions))
            is_there = await history.caught_up(ends, CAUGHT_UP_WITHIN_S)
    except (TimeoutError, KafkaError):
        is_there = False
    return [is_there] * len(callers)


async def _all_decided() -> None:
    """Wait until everything in the command topic is decided, by any worker."""
    ends = await app.log_ends.ends(WALLET_COMMANDS, range(settings.partitions))
    looks = 0
    while True:
        decided = await decided_up_to(ends)
        ends = {each: end for each, end in ends.items() if decided.get(each, 0) < end}
        if not ends:
            return
        looks += 1
        if looks % LOOKS_BEFORE_READING == 0:
            blank = [each for each, end in ends.items() if await _is_blank(each, decided.get(each, 0), end)]
            ends = {each: end for each, end in ends.items() if each not in blank}
        await asyncio.sleep(LOOK_EVERY_S)


async def decided_up_to(partitions: Iterable[int]) -> dict[int, int]:
    """Return the ends of the decided ranges of partitions, without partitions of which nothing is decided."""
    mine = [each for each in partitions if is_mine(each)]
    decided = {each: balances.position(each).offset + 1 for each in mine}
    others = set(partitions) - set(mine)
    return decided | (await _decided_by_others(others) if others else {})


async def _decided_by_others(partitions: Iterable[int]) -> dict[int, int]:
    """Return up to where partitions are decided, from the changelog of their balances.

    A position ends each of its batches.

    The offsets that workers commit are not sufficient: a batch that was revoked from a worker counts as read.
    """
    last = await app.log_ends.last_records(BALANCES_CHANGELOG, partitions)
    rows = {partition: next(read_rows([(each.key, each.value)])) for partition, each in last.items()}
    return {partition: row.offset + 1 for partition, row in rows.items() if isinstance(row, AppliedPosition)}


is_caught_up: Coalescer[None, bool] = Coalescer(_catch_up)
"""Returns whether PostgreSQL has everything that was in the log when asked. The argument is None."""
