"""Idempotency keys: the command of a key, and the detection of a key that another command has used before.

The id of a command over HTTP is derived from the caller, the key, and the wallet that decides. Its upper half
depends on the caller's key alone, so all commands of a key are adjacent in an index over ids. A wallet itself
recognises a repeated key, with the same content or another. This module recognises a key that is repeated for
another wallet: in Redis, which remembers keys for as long as wallets do, and in PostgreSQL if Redis has lost
its memory or is unavailable. If neither knows the key, it counts as new: this results in a second command,
and each of the two still has one effect.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from enum import IntEnum
from hashlib import blake2b
from itertools import islice
from typing import Any, NamedTuple
from uuid import UUID

from redis.asyncio import Redis

from mercuria.coalescing import Coalescer
from mercuria.domain.uuids import uuid_v8
from mercuria.postgres.database import DatabaseUnavailable
from mercuria.redis.circuit_breaker import CircuitBreaker
from mercuria.redis.client import UNAVAILABLE

MAX_KEY_CHARACTERS = 255
SINCE_KEY = "mercuria:idempotency:since"
"""The key of the time since which Redis has remembered all keys, in seconds; 0: since the first key."""

_CLAIM = """
local since = tonumber(redis.call('GET', KEYS[1]))
if not since and ARGV[3] == '0' then return {-1} end
if not since then
    since = tonumber(ARGV[1])
    redis.call('SET', KEYS[1], since)
end
local is_complete = since + tonumber(ARGV[2]) < tonumber(ARGV[1])
local answers = {is_complete and 1 or 0}
for i = 4, #ARGV, 2 do
    local key = 'mercuria:idempotency:' .. ARGV[i]
    local known = redis.call('GET', key)
    if not known and (is_complete or ARGV[3] == '1') then redis.call('SET', key, ARGV[i + 1], 'EX', ARGV[2]) end
    answers[#answers + 1] = known or ''
end
return answers
"""
"""Claim keys. Key: `SINCE_KEY`.

Arguments: the current time and the lifetime in seconds; 1 to claim keys although Redis may have forgotten
their previous commands, because PostgreSQL has been asked for them; then pairs of prefix and id. Returns the
state of Redis's memory (`_Memory`), and for each key the id of the command that had claimed it before, or
nothing.
"""


class _Memory(IntEnum):
    """Which of the valid keys Redis remembers: it is unknown, those since a certain time, or all."""

    UNKNOWN, PARTIAL, COMPLETE = -1, 0, 1


LOOKED_UP_WITHIN_S = 1.0
MAX_OWED = 200_000
"""The number of claims kept for Redis while it is unavailable. Deciding stops before there are more."""
SENT_AT_ONCE = 1_000


class Claim(NamedTuple):
    """A key, as the upper 64 bits of its commands' ids, and the command that claims it."""

    prefix: int
    command_id: UUID


class Keys:
    """The idempotency keys of one installation.

    Args:
        lifetime_s: the lifetime of a key.
        used_before: returns the ids of commands by their prefixes, from PostgreSQL.
        is_new: returns whether the installation has had no command at all; called if Redis remembers nothing.
    """

    def __init__(
        self,
        redis: Redis,
        lifetime_s: int,
        used_before: Callable[[Sequence[int]], Awaitable[dict[int, UUID]]],
        is_new: Callable[[], Awaitable[bool]],
    ) -> None:
        self._redis = redis
        self._script = redis.register_script(_CLAIM)
        self._lifetime_s = lifetime_s
        self._used_before = used_before
        self._is_new = is_new
        self._claim = Coalescer(self._claim_all)
        self._breaker = CircuitBreaker(UNAVAILABLE)
        self._database_breaker = CircuitBreaker((DatabaseUnavailable, TimeoutError))
        self._owed: dict[int, UUID] = {}

    async def is_free(self, command_id: UUID) -> bool:
        """Claim the key of a command; return whether no other command has had it."""
        holder = await self._claim(Claim(command_id.int >> 64, command_id))
        return holder == command_id

    async def _claim_all(self, claims: Sequence[Claim]) -> list[UUID]:
        """Return for each claim the command that holds the key from now on: the first known one."""
        try:
            await self._tell_owed()
            memory, known = await self._tell(claims)
            if memory is _Memory.UNKNOWN:
                await self._redis.set(SINCE_KEY, 0 if await self._is_new() else int(time.time()), nx=True)
                memory, known = await self._tell(claims)
        except UNAVAILABLE:
            return self._owe(await self._looked_up(claims))
        if memory is _Memory.COMPLETE or all(known):
            return [mine or claim.command_id for mine, claim in zip(known, claims, strict=True)]
        # Redis has lost its memory, and may not know. PostgreSQL is asked before the claim, since others rely on it.
        found = await self._looked_up(claims)
        try:
            _, known = await self._tell(found, is_looked_up=True)
        except UNAVAILABLE:
            return self._owe(found)
        return [mine or claim.command_id for mine, claim in zip(known, found, strict=True)]

    async def _tell(
        self, claims: Sequence[Claim], *, is_looked_up: bool = False
    ) -> tuple[_Memory, list[UUID | None]]:
        arguments: list[Any] = [int(time.time()), self._lifetime_s, int(is_looked_up)]
        for prefix, command_id in claims:
            arguments += (f"{prefix:016x}", command_id.hex)
        with self._breaker.unless_away():
            memory, *holders = await self._script(keys=[SINCE_KEY], args=arguments)
        return _Memory(memory), [
            UUID(each.decode()) if each else None for each in holders or [b""] * len(claims)
        ]

    async def _looked_up(self, claims: Sequence[Claim]) -> list[Claim]:
        """Return the claims with the commands that have had the keys before, as far as PostgreSQL knows."""
        used: dict[int, UUID] = {}
        with suppress(DatabaseUnavailable, TimeoutError), self._database_breaker.unless_away():
            async with asyncio.timeout(LOOKED_UP_WITHIN_S):
                used = await self._used_before([prefix for prefix, _ in claims])
        return [Claim(prefix, used.get(prefix, command_id)) for prefix, command_id in claims]

    def _owe(self, claims: Sequence[Claim]) -> list[UUID]:
        """Claim keys in this process while Redis is unavailable; Redis receives the claims later."""
        if len(self._owed) > MAX_OWED:
            self._owed.clear()
        return [self._owed.setdefault(prefix, command_id) for prefix, command_id in claims]

    async def _tell_owed(self) -> None:
        """Send Redis the keys that were claimed while it was unavailable."""
        while self._owed:
            some = [Claim(*item) for item in islice(self._owed.items(), SENT_AT_ONCE)]
            await self._tell(some, is_looked_up=True)
            for prefix, _ in some:
                self._owed.pop(prefix, None)


def key_prefix(caller_id: UUID, key: str) -> bytes:
    """Return the common prefix of the ids of all commands of a caller's key: 8 bytes."""
    return blake2b(caller_id.bytes + key.encode(), digest_size=8, person=b"mercuria-key").digest()


def command_id_of(prefix: bytes, wallet_id: UUID) -> UUID:
    """Return the id of a key's command to a wallet: a UUID of version 8 (RFC 9562)."""
    suffix = blake2b(prefix + wallet_id.bytes, digest_size=8, person=b"mercuria-command").digest()
    return uuid_v8(prefix + suffix)


def wallet_id_of(prefix: bytes) -> UUID:
    """Return the id of the wallet that a key opens."""
    return uuid_v8(blake2b(prefix, digest_size=16, person=b"mercuria-wallet").digest())
