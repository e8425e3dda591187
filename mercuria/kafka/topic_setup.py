"""Creates the topics before a consumer polls them: Faust does not notice a topic that is created later."""

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import TopicAlreadyExistsError, for_code

from mercuria.config import Settings
from mercuria.topics import TOPICS

_KNOWN_WITHIN_S = 30


class TopicError(Exception):
    """A topic cannot be used. The message is one sentence with the reason."""


async def declare_topics(servers: str, partitions: int, replication: int) -> None:
    """Create the missing topics, and wait until the whole cluster knows them.

    Raises:
        TopicError: a topic exists with another number of partitions, or cannot be created.
    """
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    try:
        missing = {topic.name for topic in TOPICS} - set(await admin.list_topics())
        new = [
            NewTopic(topic.name, partitions, replication, topic_configs=topic.config)
            for topic in TOPICS
            if topic.name in missing
        ]
        if new:
            _raise_errors(await admin.create_topics(new))
        await _await_partitions(admin, partitions)
    finally:
        await admin.close()


def prepare(env: Mapping[str, str]) -> None:
    """Create the topics of the stack that `env` (MERCURIA_* variables) describes.

    Raises:
        TopicError: see `declare_topics`.
    """
    settings = Settings.from_env(env)
    declaring = declare_topics(settings.kafka, settings.partitions, settings.replication)
    # The caller may have a running event loop in its own thread.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, declaring).result()


def _raise_errors(response: object) -> None:
    for topic, code, *message in response.topic_errors:  # type: ignore[attr-defined]
        error = for_code(code)
        # Several workers may start at the same time.
        if code and error is not TopicAlreadyExistsError:
            raise TopicError(
                f"The topic {topic} cannot be made: {message[0] if message else error.__name__}."
            )


async def _await_partitions(admin: AIOKafkaAdminClient, partitions: int) -> None:
    names = [topic.name for topic in TOPICS]
    async with asyncio.timeout(_KNOWN_WITHIN_S):
        while True:
            counts = {
                topic["topic"]: len(topic["partitions"])
                for topic in await admin.describe_topics(names)
                if topic["error_code"] == 0
            }
            if len(counts) == len(names):
                break
            await asyncio.sleep(0.1)
    for name, count in counts.items():
        if count != partitions:
            raise TopicError(
                f"MERCURIA_PARTITIONS={partitions} cannot be used: the topic {name} has {count} partitions, and an"
                " installation keeps its number of them."
            )
