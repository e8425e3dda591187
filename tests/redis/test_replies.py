"""Replies over Redis: they come, also after Redis was away; and none goes to a request that it is not for."""

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID

import pytest
from redis.asyncio import Redis as Client

from mercuria.embedded.redis import Redis
from mercuria.redis.replies import CHANNEL, Replies, Reply, encode_replies
from tests.redis.conftest import away, until


@pytest.fixture
async def replies(server: Redis) -> AsyncIterator[Replies]:
    """Return the replies of a node that listens."""
    made = Replies(server.url)
    async with made:
        await until(lambda: made.heard_since_s is not None)
        yield made


COMMAND_ID = UUID(int=7)


async def publish(redis: Client, replies: Replies, *numbers: int) -> None:
    """Publish replies to requests, as another node does."""
    found = [Reply(number, command_id=COMMAND_ID) for number in numbers]
    await redis.publish(CHANNEL.format(replies.node), encode_replies(found))


async def test_a_reply_comes_to_the_request_that_it_is_for(redis: Client, replies: Replies) -> None:
    waiting = [replies.expect(COMMAND_ID) for _ in range(3)]
    await publish(redis, replies, waiting[2].address.number, waiting[0].address.number, 10**6)
    for each in (waiting[0], waiting[2]):
        reply = await asyncio.wait_for(each.reply, 2)
        assert reply.number == each.address.number
    assert not waiting[1].reply.done()


async def test_a_late_reply_and_a_second_one_do_no_harm(redis: Client, replies: Replies) -> None:
    gone, there = replies.expect(COMMAND_ID), replies.expect(COMMAND_ID)
    replies.give_up(gone)
    await publish(redis, replies, gone.address.number, there.address.number)
    await publish(redis, replies, there.address.number)
    assert (await asyncio.wait_for(there.reply, 2)).number == there.address.number
    later = replies.expect(COMMAND_ID)
    assert later.address.number not in (gone.address.number, there.address.number)
    assert not gone.reply.done()


async def test_a_reply_to_another_command_does_not_end_the_wait(redis: Client, replies: Replies) -> None:
    waiting = replies.expect(COMMAND_ID)
    number = waiting.address.number
    others = [Reply(number), Reply(number, command_id=UUID(int=8))]
    await redis.publish(CHANNEL.format(replies.node), encode_replies(others))
    await publish(redis, replies, number)
    assert (await asyncio.wait_for(waiting.reply, 2)).command_id == COMMAND_ID


async def test_nodes_do_not_hear_each_other(server: Redis, redis: Client, replies: Replies) -> None:
    async with Replies(server.url) as other:
        await until(lambda: other.heard_since_s is not None)
        mine, theirs = replies.expect(COMMAND_ID), other.expect(COMMAND_ID)
        assert mine.address.number == theirs.address.number
        await publish(redis, other, theirs.address.number)
        await asyncio.wait_for(theirs.reply, 2)
        assert not mine.reply.done()


async def test_replies_come_again_after_redis_was_away(
    server: Redis, redis: Client, replies: Replies
) -> None:
    with away(server):
        await until(lambda: replies.heard_since_s is None)
    await until(lambda: replies.heard_since_s is not None)
    waiting = replies.expect(COMMAND_ID)
    await publish(redis, replies, waiting.address.number)
    await asyncio.wait_for(waiting.reply, 2)


async def test_nonsense_on_the_channel_is_not_the_end(redis: Client, replies: Replies) -> None:
    await redis.publish(CHANNEL.format(replies.node), b"nonsense")
    waiting = replies.expect(COMMAND_ID)

    async def is_heard() -> bool:
        await publish(redis, replies, waiting.address.number)
        return waiting.reply.done()

    await until(is_heard)
