"""What Redis remembers of wallets and transactions, for the nodes that do not own them. All of it may vanish.

Balances stand under the epoch of their partition. Its owner alone writes them and begins a new epoch when it takes
the partition over, or cannot keep up: then all that stood there counts no more. Within an epoch, an older version
never overwrites a newer one. Transactions stand for an hour, which is longer than PostgreSQL is ever behind.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
from redis.asyncio import Redis

from mercuria.adapters.coalescing import Coalescer
from mercuria.domain.transaction import Transaction
from mercuria.domain.wallet import Wallet

LIFE_S = 3600
EPOCH_KEY = "mercuria:epoch:wallets:{}"
TRANSACTION_KEY = "mercuria:transaction:{}"

_REMEMBER = """
local at = 2
for _ = 1, ARGV[1] do
    local epoch_key, epoch, wallets = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2])
    at = at + 3
    local current = tonumber(redis.call('GET', epoch_key) or '0')
    if tonumber(epoch) > current then redis.call('SET', epoch_key, epoch) end
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
"""Remember wallets, unless a newer version or epoch is there; remember transactions; publish messages.

Instead of a key: the life in seconds. Arguments: how many partitions, and for each the key of its epoch, the epoch,
how many wallets, and for each its id and its version in 19 digits with the wallet behind it; how many transactions,
and for each its key and value; then channels and messages.
"""

_READ = """
local found = {}
for i = 1, #ARGV, 2 do
    local epoch = redis.call('GET', ARGV[i])
    found[#found + 1] = epoch and redis.call('GET', 'mercuria:balance:' .. epoch .. ':' .. ARGV[i + 1])
end
return found
"""
"""Return wallets, or nothing for each that is not remembered. Arguments: pairs of the key of an epoch and an id."""

_VERSION_DIGITS = 19

_encode = msgspec.msgpack.Encoder(uuid_format="bytes").encode
_decode_wallet = msgspec.msgpack.Decoder(Wallet).decode
_decode_transaction = msgspec.msgpack.Decoder(Transaction).decode


class Balances(NamedTuple):
    """Wallets of a partition to remember, in its epoch."""

    partition: int
    epoch: int
    wallets: Sequence[Wallet]


class Cache:
    """The cache. Every call raises one of `adapters.redis.UNAVAILABLE` when Redis is away."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._remember = redis.register_script(_REMEMBER)
        self._read = redis.register_script(_READ)
        self._find = Coalescer(self._find_all)

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
        await self._redis.set(key, _encode(transaction), ex=LIFE_S, nx=True)

    async def wallet(self, partition: int, wallet_id: UUID) -> Wallet | None:
        """Return a wallet of `partition`; None where it is not remembered."""
        return await self._find((partition, wallet_id))

    async def _find_all(self, asked: Sequence[tuple[int, UUID]]) -> list[Wallet | None]:
        arguments = [each for partition, id_ in asked for each in (EPOCH_KEY.format(partition), id_.hex)]
        values: Any = await self._read(keys=[], args=arguments)
        return [_decode_wallet(value[_VERSION_DIGITS:]) if value else None for value in values]

    async def transaction(self, transaction_id: UUID) -> Transaction | None:
        """Return a transaction; None where it is not remembered."""
        value: Any = await self._redis.get(TRANSACTION_KEY.format(transaction_id.hex))
        return _decode_transaction(value) if value else None
