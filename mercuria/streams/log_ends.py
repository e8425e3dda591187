"""The ends of the log: where each partition of a topic ends now, and up to where the workers have come.

The worker's consumer cannot be asked: it polls in a thread of its own, and who asks waits until it has polled.
"""

from collections.abc import Iterable

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from mode import Service


class LogEnds(Service):
    """Asks Kafka, over connections that are made when they are needed.

    Args:
        servers: Kafka's bootstrap servers.
        group: the workers' consumer group.
    """

    def __init__(self, servers: str, group: str) -> None:
        super().__init__()
        self._servers = servers
        self._group = group
        self._consumer: AIOKafkaConsumer | None = None
        self._admin: AIOKafkaAdminClient | None = None

    async def ends(self, topic: str, partitions: Iterable[int]) -> dict[int, int]:
        """Return for each partition the offset that its next record will have."""
        if self._consumer is None:
            consumer = AIOKafkaConsumer(bootstrap_servers=self._servers, enable_auto_commit=False)
            await consumer.start()
            self._consumer = consumer
        found = await self._consumer.end_offsets([TopicPartition(topic, each) for each in partitions])
        return {tp.partition: offset for tp, offset in found.items()}

    async def committed(self, topic: str) -> dict[int, int]:
        """Return for each partition up to where the group has come, where it has said so."""
        if self._admin is None:
            admin = AIOKafkaAdminClient(bootstrap_servers=self._servers)
            await admin.start()
            self._admin = admin
        found = await self._admin.list_consumer_group_offsets(self._group)
        return {tp.partition: each.offset for tp, each in found.items() if tp.topic == topic}

    async def on_stop(self) -> None:
        """Close the connections."""
        if self._consumer is not None:
            await self._consumer.stop()
        if self._admin is not None:
            await self._admin.close()
