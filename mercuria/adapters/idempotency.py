"""Idempotency keys: which command a key belongs to, and whether it was used for another one before.

The id of a command over HTTP comes from the caller, the key, and the wallet that decides. Its upper half is the
key's alone, so all that was ever done under a key stands together in an index over ids. A wallet itself recognises a
key that comes again, with the same content or another; a key that comes again for another wallet is recognised here:
in Redis, which remembers keys for as long as wallets do, and in PostgreSQL where Redis cannot know, having lost its
memory or being away.
"""

import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from hashlib import blake2b
from typing import Any, NamedTuple
from uuid import UUID

from redis.asyncio import Redis

from mercuria.adapters.coalescing import Coalescer
from mercuria.adapters.redis import UNAVAILABLE

MAX_KEY_CHARACTERS = 255
SINCE_KEY = "mercuria:idempotency:since"
"""Since when Redis has remembered all keys, in seconds."""

_CLAIM = """
local since = redis.call('GET', KEYS[1])
if not since then
    redis.call('SET', KEYS[1], ARGV[1])
    since = ARGV[1]
end
local answers = {since}
for i = 3, #ARGV, 2 do
    local key = 'mercuria:idempotency:' .. ARGV[i]
    local known = redis.call('GET', key)
    if not known then redis.call('SET', key, ARGV[i + 1], 'EX', ARGV[2]) end
    answers[#answers + 1] = known or ''
end
return answers
"""
"""Claim keys. Key: since when all are remembered. Arguments: now and life in seconds, then pairs of prefix and id.

Returns since when, and for each the id of the command that had claimed it before, or nothing.
"""


class Claim(NamedTuple):
    """A key, as the upper 64 bits of its commands' ids, and the command that wants it."""

    prefix: int
    command_id: UUID


class Keys:
    """The keys of one installation.

    Args:
        lifetime_s: for how long a key counts.
        used_before: asked for the ids of commands by their prefixes, from PostgreSQL.
    """

    def __init__(
        self,
        redis: Redis,
        lifetime_s: int,
        used_before: Callable[[Sequence[int]], Awaitable[dict[int, UUID]]],
    ) -> None:
        self._redis = redis
        self._script = redis.register_script(_CLAIM)
        self._lifetime_s = lifetime_s
        self._used_before = used_before
        self._claim = Coalescer(self._claim_all)

    async def begin(self, *, is_new: bool) -> None:
        """Say whether the installation `is_new`: then Redis, unless it knows better, has known all keys there are."""
        if is_new:
            with suppress(*UNAVAILABLE):
                await self._redis.set(SINCE_KEY, 0, nx=True)

    async def is_free(self, command_id: UUID) -> bool:
        """Claim the key of a command; tell whether no other command has had it."""
        holder = await self._claim(Claim(command_id.int >> 64, command_id))
        return holder is None or holder == command_id

    async def _claim_all(self, claims: Sequence[Claim]) -> list[UUID | None]:
        now_s = int(time.time())
        arguments: list[Any] = [now_s, self._lifetime_s]
        for prefix, command_id in claims:
            arguments += (f"{prefix:016x}", command_id.hex)
        try:
            since, *holders = await self._script(keys=[SINCE_KEY], args=arguments)
        except UNAVAILABLE:
            return await self._look_up(claims)
        known = [UUID(holder.decode()) if holder else None for holder in holders]
        if int(since) + self._lifetime_s < now_s or all(known):
            return known
        found = await self._look_up(claims)
        for (prefix, command_id), theirs in zip(claims, found, strict=True):
            if theirs not in (None, command_id):
                await self._correct(prefix, theirs)
        return [theirs or mine for mine, theirs in zip(known, found, strict=True)]

    async def _correct(self, prefix: int, holder: UUID) -> None:
        """Let Redis know who holds a key: it has just taken another one for the first."""
        with suppress(*UNAVAILABLE):
            await self._redis.set(f"mercuria:idempotency:{prefix:016x}", holder.hex, ex=self._lifetime_s)

    async def _look_up(self, claims: Sequence[Claim]) -> list[UUID | None]:
        used = await self._used_before([prefix for prefix, _ in claims])
        return [used.get(prefix) for prefix, _ in claims]


def key_prefix(caller_id: UUID, key: str) -> bytes:
    """Return what all commands of a caller's key have in common: 8 bytes."""
    return blake2b(caller_id.bytes + key.encode(), digest_size=8, person=b"mercuria-key").digest()


def command_id_of(prefix: bytes, wallet_id: UUID) -> UUID:
    """Return the id of the command that a key stands for at a wallet: a UUID of version 8 (RFC 9562)."""
    suffix = blake2b(prefix + wallet_id.bytes, digest_size=8, person=b"mercuria-command").digest()
    return _version_8(prefix + suffix)


def wallet_id_of(prefix: bytes) -> UUID:
    """Return the id of the wallet that a key opens."""
    return _version_8(blake2b(prefix, digest_size=16, person=b"mercuria-wallet").digest())


def _version_8(content: bytes) -> UUID:
    number = int.from_bytes(content)
    number = number & ~(0xF000 << 64) | 8 << 76
    return UUID(int=number & ~(0xC000 << 48) | 0x8000 << 48)
