"""What Redis remembers of wallets and transactions, for the nodes that do not own them. All of it may vanish.

Balances stand under the epoch of their partition. Its owner alone writes them and begins a new epoch when it takes
the partition over, or cannot keep up: then all that stood there counts no more. Within an epoch, an older version
never overwrites a newer one. Transactions stand for an hour, which is longer than PostgreSQL is ever behind.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
from redis.asyncio import Redis

from mercuria.domain.transaction import Transaction
from mercuria.domain.wallet import Wallet

LIFE_S = 3600
EPOCH_KEY = "mercuria:epoch:wallets:{}"
TRANSACTION_KEY = "mercuria:transaction:{}"

_WRITE = """
local epoch, current = tonumber(ARGV[1]), tonumber(redis.call('GET', KEYS[1]) or '0')
if epoch < current then return 0 end
if epoch > current then redis.call('SET', KEYS[1], ARGV[1]) end
for i = 3, #ARGV, 2 do
    local key = 'mercuria:balance:' .. ARGV[1] .. ':' .. ARGV[i]
    local kept = redis.call('GETRANGE', key, 0, 18)
    if kept < ARGV[i + 1]:sub(1, 19) then redis.call('SET', key, ARGV[i + 1], 'EX', ARGV[2]) end
end
return 1
"""
"""Remember wallets, unless a newer version or epoch is there. Key: the partition's epoch.

Arguments: epoch, life in seconds, and for each wallet its id and its version in 19 digits with the wallet behind it.
"""

_READ = """
local epoch = redis.call('GET', KEYS[1])
if not epoch then return false end
return redis.call('GET', 'mercuria:balance:' .. epoch .. ':' .. ARGV[1])
"""

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
        self._write = redis.register_script(_WRITE)
        self._read = redis.register_script(_READ)

    async def remember(
        self,
        balances: Iterable[Balances],
        transactions: Iterable[Transaction],
        messages: Iterable[tuple[str, bytes]] = (),
    ) -> None:
        """Remember wallets and transactions, then publish messages on channels, all in one go."""
        async with self._redis.pipeline(transaction=False) as pipeline:
            for partition, epoch, wallets in balances:
                arguments: list[Any] = [epoch, LIFE_S]
                for each in wallets:
                    arguments += (each.id.hex, b"%019d%b" % (each.version, _encode(each)))
                await self._write(keys=[EPOCH_KEY.format(partition)], args=arguments, client=pipeline)
            for transaction in transactions:
                pipeline.set(TRANSACTION_KEY.format(transaction.id.hex), _encode(transaction), ex=LIFE_S)
            for channel, message in messages:
                pipeline.publish(channel, message)
            await pipeline.execute()

    async def remember_pending(self, transaction: Transaction) -> None:
        """Remember a transaction that nobody has decided yet, unless somebody has."""
        key = TRANSACTION_KEY.format(transaction.id.hex)
        await self._redis.set(key, _encode(transaction), ex=LIFE_S, nx=True)

    async def wallet(self, partition: int, wallet_id: UUID) -> Wallet | None:
        """Return a wallet of `partition`; None where it is not remembered."""
        value: Any = await self._read(keys=[EPOCH_KEY.format(partition)], args=[wallet_id.hex])
        return _decode_wallet(value[_VERSION_DIGITS:]) if value else None

    async def transaction(self, transaction_id: UUID) -> Transaction | None:
        """Return a transaction; None where it is not remembered."""
        value: Any = await self._redis.get(TRANSACTION_KEY.format(transaction_id.hex))
        return _decode_transaction(value) if value else None
