"""What Redis remembers of wallets and transactions, for the nodes that do not own them. All of it may vanish.

Balances stand under the epoch of their partition. Its owner alone writes them, and begins a new epoch when it takes the
partition over or Redis may have missed something: then all that stood there counts no more. Within an epoch, an older
version never overwrites a newer one. An epoch is one of the process that Redis is, so nothing counts that a Redis knows
from a life before. That the owner is still there, its lock says, which it renews every two seconds: what was written
under a lock that is older than that may be old, since an owner goes on for a while without Redis.

Transactions stand for an hour, which is longer than PostgreSQL is ever behind.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
from redis.asyncio import Redis

from mercuria.adapters import metrics
from mercuria.adapters.coalescing import Coalescer
from mercuria.adapters.redis import UNAVAILABLE
from mercuria.adapters.resting import Rest
from mercuria.domain.transaction import Transaction
from mercuria.domain.wallet import Wallet

LIFE_S = 3600
EPOCH_LIFE_S = 86_400
"""Its owner renews it as well."""
LOCK_LIFE_S = 10.0
FRESH_S = 3.0
"""What is cached is as it was so long ago at the most, while its owner renews its lock."""
LOCK_KEY = "mercuria:lock:wallets:{}"
EPOCH_KEY = "mercuria:epoch:wallets:{}"
TRANSACTION_KEY = "mercuria:transaction:{}"

PROCESS = "local process = redis.call('INFO', 'server'):match('run_id:(%x+)') or ''"
"""Lua that finds out which process Redis is. Epochs stand under their key, a colon, and it."""

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
        local key, value = 'mercuria:balance:' .. epoch .. ':' .. ARGV[i], ARGV[i + 1]
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
"""Remember wallets, unless a newer version or epoch is there, or none at all; remember transactions; publish messages.

Instead of a key: the life in seconds. Arguments: how many partitions, and for each the key of its epoch, the epoch,
how many wallets, and for each its id and its version in 19 digits with the wallet behind it; how many transactions,
and for each its key and value; then channels and messages.
"""

_READ = (
    PROCESS
    + """
local found = {}
for i = 1, #ARGV, 3 do
    local epoch, value = redis.call('GET', ARGV[i + 1] .. ':' .. process), false
    if epoch then value = redis.call('GET', 'mercuria:balance:' .. epoch .. ':' .. ARGV[i + 2]) end
    found[#found + 1] = value
    found[#found + 1] = redis.call('PTTL', ARGV[i]) > tonumber(KEYS[1]) and 1 or 0
end
return found
"""
)
"""Return wallets, or nothing for each that is not remembered, and whether the lock of each was renewed lately.

Instead of a key: how many ms a lock still lives that was. Arguments: for each, the keys of its partition's lock and
epoch, and its id.
"""

_VERSION_DIGITS = 19
_FRESH_LOCK_MS = str(int(1000 * (LOCK_LIFE_S - FRESH_S)))

_encode = msgspec.msgpack.Encoder(uuid_format="bytes").encode
_decode_wallet = msgspec.msgpack.Decoder(Wallet).decode
_decode_transaction = msgspec.msgpack.Decoder(Transaction).decode


class Balances(NamedTuple):
    """Wallets of a partition to remember, in its epoch."""

    partition: int
    epoch: int
    wallets: Sequence[Wallet]


class Cached(NamedTuple):
    """A wallet as it is remembered. `is_fresh`: no longer than `FRESH_S` ago, it was so."""

    wallet: Wallet
    is_fresh: bool


class Cache:
    """The cache. Every call raises one of `adapters.redis.UNAVAILABLE` when Redis is away, or was a moment ago."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._remember = redis.register_script(_REMEMBER)
        self._read = redis.register_script(_READ)
        self._find = Coalescer(self._find_all)
        self._rest = Rest(UNAVAILABLE)

    async def remember(
        self,
        balances: Sequence[Balances],
        transactions: Sequence[Transaction],
        messages: Sequence[tuple[str, bytes]] = (),
    ) -> None:
        """Remember wallets and transactions, then publish messages on channels, all in one call."""
        arguments: list[Any] = [len(balances)]
        for partition, epoch, wallets in balances:
            arguments += (EPOCH_KEY.format(partition), epoch, len(wallets))
            for each in wallets:
                arguments += (each.id.hex, b"%019d%b" % (each.version, _encode(each)))
        arguments.append(len(transactions))
        for transaction in transactions:
            arguments += (TRANSACTION_KEY.format(transaction.id.hex), _encode(transaction))
        for message in messages:
            arguments += message
        await self._remember(keys=[str(LIFE_S)], args=arguments)

    async def remember_pending(self, transaction: Transaction) -> None:
        """Remember a transaction that nobody has decided yet, unless somebody has."""
        key = TRANSACTION_KEY.format(transaction.id.hex)
        with self._rest.unless_away():
            await self._redis.set(key, _encode(transaction), ex=LIFE_S, nx=True)

    async def wallet(self, partition: int, wallet_id: UUID) -> Cached | None:
        """Return a wallet of `partition`; None where it is not remembered."""
        return await self._find((partition, wallet_id))

    async def _find_all(self, asked: Sequence[tuple[int, UUID]]) -> list[Cached | None]:
        arguments: list[Any] = []
        for partition, id_ in asked:
            arguments += (LOCK_KEY.format(partition), EPOCH_KEY.format(partition), id_.hex)
        with self._rest.unless_away():
            found: Any = await self._read(keys=[_FRESH_LOCK_MS], args=arguments)
        metrics.count_cache_reads(sum(value is not None for value in found[::2]), len(asked))
        return [
            Cached(_decode_wallet(value[_VERSION_DIGITS:]), bool(is_fresh)) if value else None
            for value, is_fresh in zip(found[::2], found[1::2], strict=True)
        ]

    async def transaction(self, transaction_id: UUID) -> Transaction | None:
        """Return a transaction; None where it is not remembered."""
        with self._rest.unless_away():
            value: Any = await self._redis.get(TRANSACTION_KEY.format(transaction_id.hex))
        metrics.count_cache_reads(int(value is not None), 1)
        return _decode_transaction(value) if value else None
