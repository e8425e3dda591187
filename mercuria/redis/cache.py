"""The cache of wallets and transactions in Redis, for nodes that do not own them. All of it may vanish.

Balances are stored under the epoch of their partition. Only the partition's owner writes them. It begins a
new epoch when it takes the partition over, or when Redis may have missed a write: this invalidates everything
stored before. Within an epoch, an older version never overwrites a newer one. An epoch belongs to one process
of Redis, so data from before a restart of Redis does not count. The owner's lease, which it renews every two
seconds, proves that the owner is still there. A balance under a lease that was not renewed in time may be
outdated, since an owner continues for a while without Redis.

Transactions are kept for an hour, which is longer than PostgreSQL ever lags.

After each value follow the time when it was written and a MAC over its key and both (`redis.authenticity`). A
value that no worker of this installation wrote counts as missing, and is removed. The MAC of a wallet covers
the partition and the epoch as well. A client that can write to Redis can still remove values, and restore one
of the last hour: an older version of a wallet in its epoch, or in an earlier epoch by setting the epoch back.
The value shown then was true within that hour. Redis itself compares versions and epochs, as a protection
against late writes, not against an attacker.
"""

import time
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
from redis.asyncio import Redis

from mercuria.coalescing import Coalescer
from mercuria.domain.transaction import Transaction
from mercuria.domain.wallet import Wallet
from mercuria.observability import metrics
from mercuria.redis.authenticity import MAC_BYTES, Authenticity
from mercuria.redis.circuit_breaker import CircuitBreaker
from mercuria.redis.client import UNAVAILABLE

LIFE_S = 3600
EPOCH_LIFE_S = 86_400
"""The lifetime of an epoch. The owner renews it with its lease."""
LOCK_LIFE_S = 10.0
FRESH_S = 3.0
"""The maximum age of a cached state while the owner renews its lease."""
LOCK_KEY = "mercuria:lock:wallets:{}"
EPOCH_KEY = "mercuria:epoch:wallets:{}"
TRANSACTION_KEY = "mercuria:sealed-transaction:{}"
"""Workers of earlier versions use `mercuria:balance:…` and `mercuria:transaction:…`, without MACs. Neither
version reads the keys of the other, so workers can be replaced one after the other."""
CLOCKS_DIFFER_S = 60
"""The maximum clock difference between two workers. Beyond it, one takes the other's values for expired."""

PROCESS = "local process = redis.call('INFO', 'server'):match('run_id:(%x+)') or ''"
"""Lua code that identifies the process of Redis. An epoch is stored under its key, a colon, and this id."""

_REMEMBER = (
    PROCESS
    + """
local at = 2
for _ = 1, ARGV[1] do
    local epoch_key, epoch, wallets = ARGV[at] .. ':' .. process, ARGV[at + 1], tonumber(ARGV[at + 2])
    at = at + 3
    local current = tonumber(redis.call('GET', epoch_key)) or math.huge
    if tonumber(epoch) > current then redis.call('SET', epoch_key, epoch, 'KEEPTTL') end
    for i = at, at + 2 * wallets - 1, 2 do
        local key, value = 'mercuria:sealed-balance:' .. epoch .. ':' .. ARGV[i], ARGV[i + 1]
        if tonumber(epoch) >= current and redis.call('GETRANGE', key, 0, 18) < value:sub(1, 19) then
            redis.call('SET', key, value, 'EX', KEYS[1])
        end
    end
    at = at + 2 * wallets
end
local transactions = tonumber(ARGV[at])
for i = at + 1, at + 2 * transactions, 2 do redis.call('SET', ARGV[i], ARGV[i + 1], 'EX', KEYS[1]) end
for i = at + 2 * transactions + 1, #ARGV, 2 do redis.call('PUBLISH', ARGV[i], ARGV[i + 1]) end
"""
)
"""Store wallets, unless there is a newer version or epoch, or no epoch; store transactions; publish messages.

Instead of a key: the lifetime in seconds. Arguments: the number of partitions, and for each one the key of
its epoch, the epoch, the number of wallets, and for each wallet its id and its version in 19 digits followed
by the wallet; the number of transactions, and the key and value of each one; then channels and messages.
"""

_READ = (
    PROCESS
    + """
local found = {}
for i = 1, #ARGV, 3 do
    local epoch, value = redis.call('GET', ARGV[i + 1] .. ':' .. process), false
    if epoch then value = redis.call('GET', 'mercuria:sealed-balance:' .. epoch .. ':' .. ARGV[i + 2]) end
    found[#found + 1] = value
    found[#found + 1] = epoch
    found[#found + 1] = redis.call('PTTL', ARGV[i]) > tonumber(KEYS[1]) and 1 or 0
end
return found
"""
)
"""Return for each wallet its value or nothing, its epoch, and whether its lease was renewed recently.

Instead of a key: the minimum remaining lifetime, in ms, of a recently renewed lease. Arguments: for each
wallet, the keys of its partition's lease and epoch, and its id.
"""

_VERSION_DIGITS = 19
_TIME_BYTES = 8
_FRESH_LOCK_MS = str(int(1000 * (LOCK_LIFE_S - FRESH_S)))

_encode = msgspec.msgpack.Encoder(uuid_format="bytes").encode
_decode_wallet = msgspec.msgpack.Decoder(Wallet).decode
_decode_transaction = msgspec.msgpack.Decoder(Transaction).decode


class Balances(NamedTuple):
    """Wallets of a partition to cache, and the partition's epoch."""

    partition: int
    epoch: int
    wallets: Sequence[Wallet]


class Cached(NamedTuple):
    """A cached wallet. `is_fresh` means that this state was current at most `FRESH_S` ago."""

    wallet: Wallet
    is_fresh: bool


class Cache:
    """The cache. Calls raise one of `redis.client.UNAVAILABLE` if Redis is, or recently was, unavailable."""

    def __init__(self, redis: Redis, authenticity: Authenticity) -> None:
        self._redis = redis
        self._authenticity = authenticity
        self._remember = redis.register_script(_REMEMBER)
        self._read = redis.register_script(_READ)
        self._find = Coalescer(self._find_all)
        self._breaker = CircuitBreaker(UNAVAILABLE)

    async def remember(
        self,
        balances: Sequence[Balances],
        transactions: Sequence[Transaction],
        messages: Sequence[tuple[str, bytes]] = (),
    ) -> None:
        """Store wallets and transactions, then publish messages on channels, all in one call."""
        arguments: list[Any] = [len(balances)]
        for partition, epoch, wallets in balances:
            arguments += (EPOCH_KEY.format(partition), epoch, len(wallets))
            for each in wallets:
                value = b"%019d%b" % (each.version, _encode(each))
                arguments += (
                    each.id.hex,
                    self._sealed(_wallet_key(partition, b"%d" % epoch, each.id), value),
                )
        arguments.append(len(transactions))
        for transaction in transactions:
            arguments += (TRANSACTION_KEY.format(transaction.id.hex), self._sealed_transaction(transaction))
        for message in messages:
            arguments += message
        await self._remember(keys=[str(LIFE_S)], args=arguments)

    async def remember_pending(self, transaction: Transaction) -> None:
        """Store a transaction that is not decided yet, unless the cache has its outcome already."""
        key = TRANSACTION_KEY.format(transaction.id.hex)
        with self._breaker.unless_away():
            await self._redis.set(key, self._sealed_transaction(transaction), ex=LIFE_S, nx=True)

    async def wallet(self, partition: int, wallet_id: UUID) -> Cached | None:
        """Return a wallet of `partition`, or None if it is not cached."""
        return await self._find((partition, wallet_id))

    async def _find_all(self, asked: Sequence[tuple[int, UUID]]) -> list[Cached | None]:
        arguments: list[Any] = []
        for partition, id_ in asked:
            arguments += (LOCK_KEY.format(partition), EPOCH_KEY.format(partition), id_.hex)
        with self._breaker.unless_away():
            found: Any = await self._read(keys=[_FRESH_LOCK_MS], args=arguments)
        rows = list(zip(asked, found[::3], found[1::3], found[2::3], strict=True))
        opened = [
            None if value is None else self._opened(_wallet_key(partition, epoch, id_), value)
            for (partition, id_), value, epoch, _ in rows
        ]
        await self._remove(
            b"mercuria:sealed-balance:%b:%b" % (epoch, id_.hex.encode())
            for content, ((_, id_), value, epoch, _) in zip(opened, rows, strict=True)
            if value is not None and content is None
        )
        metrics.count_cache_reads(sum(content is not None for content in opened), len(asked))
        return [
            Cached(_decode_wallet(content[_VERSION_DIGITS:]), bool(is_fresh)) if content else None
            for content, (*_, is_fresh) in zip(opened, rows, strict=True)
        ]

    async def transaction(self, transaction_id: UUID) -> Transaction | None:
        """Return a transaction, or None if it is not cached."""
        key = TRANSACTION_KEY.format(transaction_id.hex)
        with self._breaker.unless_away():
            value: Any = await self._redis.get(key)
        content = None if value is None else self._opened(_transaction_key(transaction_id), value)
        if value is not None and content is None:
            await self._remove([key.encode()])
        metrics.count_cache_reads(int(content is not None), 1)
        return None if content is None else _decode_transaction(content)

    def _sealed_transaction(self, transaction: Transaction) -> bytes:
        return self._sealed(_transaction_key(transaction.id), _encode(transaction))

    def _sealed(self, key: bytes, content: bytes) -> bytes:
        """Return the value for Redis: the content, the time of writing (in ms, 8 bytes), and the MAC."""
        written = content + int(time.time() * 1000).to_bytes(_TIME_BYTES)
        return written + self._authenticity.mac(key, written)

    def _opened(self, key: bytes, value: bytes) -> bytes | None:
        """Return the content; None if no worker wrote it under this key, or if it is too old."""
        written, mac = value[:-MAC_BYTES], value[-MAC_BYTES:]
        if not self._authenticity.holds(key, written, mac):
            return None
        written_s = int.from_bytes(written[-_TIME_BYTES:]) / 1000
        return written[:-_TIME_BYTES] if time.time() - written_s < LIFE_S + CLOCKS_DIFFER_S else None

    async def _remove(self, keys: Iterable[bytes]) -> None:
        """Remove values that are not authentic: a version that is never reached would block true ones."""
        for key in keys:
            self._authenticity.distrust(key.decode(errors="backslashreplace"))
            with self._breaker.unless_away():
                await self._redis.delete(key)


def _wallet_key(partition: int, epoch: bytes, id_: UUID) -> bytes:
    return b"balance:%d:%b:%b" % (partition, epoch, id_.bytes)


def _transaction_key(id_: UUID) -> bytes:
    return b"transaction:%b" % id_.bytes
