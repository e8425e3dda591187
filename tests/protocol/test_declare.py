"""The topics of an installation that exists are taken as they are, or not at all."""

import pytest

from mercuria.embedded.stack import Stack
from mercuria.kafka.topic_setup import TopicError, declare_topics


@pytest.mark.parametrize("more", [-1, 1])
async def test_another_number_of_partitions_than_the_topics_have_is_refused(
    live_stack: Stack, more: int
) -> None:
    servers, has = live_stack.env["MERCURIA_KAFKA"], int(live_stack.env["MERCURIA_PARTITIONS"])
    refusal = (
        rf"^MERCURIA_PARTITIONS={has + more} cannot be used: the topic mercuria\.\S+ has {has} partitions"
    )
    with pytest.raises(TopicError, match=refusal):
        await declare_topics(servers, has + more, 1)
    await declare_topics(servers, has, 1)
