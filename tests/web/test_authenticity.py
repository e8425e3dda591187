"""What is put into Redis by someone else than a worker is shown to no one."""

import pytest
from redis.asyncio import Redis

from mercuria.embedded.stack import Stack
from tests.web.api_client import ApiClient, until


@pytest.mark.parametrize("pattern", ["mercuria:sealed-balance:*:{}", "mercuria:sealed-transaction:{}"])
async def test_a_changed_value_in_redis_is_not_answered(settled: Stack, zoe: ApiClient, pattern: str) -> None:
    wallet_id = await zoe.wallet()
    deposited = (await zoe.deposit(wallet_id, 1_000_000)).document
    paths = [f"/wallets/{wallet_id}", f"/transactions/{deposited['id']}"]
    before = [(await zoe.get(path, worker=worker)).document for path in paths for worker in range(2)]
    async with Redis.from_url(settled.env["MERCURIA_REDIS"]) as redis:

        async def keys() -> list[bytes]:
            id_ = wallet_id if "balance" in pattern else deposited["id"]
            return [each async for each in redis.scan_iter(pattern.format(id_.replace("-", "")), count=1000)]

        (key,) = await until(keys, bool)
        value = await redis.get(key)
        assert value is not None
        # 1,000,000 and 999,999,999, as MessagePack has them.
        forged = value.replace(b"\xce\x00\x0f\x42\x40", b"\xce\x3b\x9a\xc9\xff").replace(
            b"completed", b"forgotten"
        )
        assert forged != value
        await redis.set(key, forged, keepttl=True)
        answered = [(await zoe.get(path, worker=worker)).document for path in paths for worker in range(2)]
    assert answered == before
