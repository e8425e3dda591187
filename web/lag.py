"""Consumer lag: by how many records each stage of the pipeline is behind its topic, in all partitions.

The health monitor measures the lag of this worker's own partitions (`web.health_monitor`).
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated

from msgspec import Meta, Struct

from mercuria.coalescing import Coalescer
from mercuria.projections.operations import Operations, Read
from mercuria.projections.registry import PROJECTIONS
from mercuria.timestamps import rfc3339_of
from mercuria.topics import WALLET_COMMANDS
from mercuria.web.log_progress import KAFKA_ANSWERS_WITHIN_S, LogProgress
from mercuria.web.representations import Time
from mercuria.worker import App

TOPICS_OF_STAGES: Mapping[str, str] = {"wallets": WALLET_COMMANDS} | {
    name: flow.reads for name, flow in PROJECTIONS.items()
}
"""The topic that each stage reads, in the order in which a command passes through the stages."""

DECIDES = "wallets"
"""The only stage whose position is not in PostgreSQL."""

NEXT = "transactions"
"""The projection that follows it."""

OWNERS_ANSWER_WITHIN_S = 1.0


class PartitionLag(Struct, frozen=True):
    """One partition of a stage's topic: `end` is the offset that its next record will have."""

    partition: int
    end: int
    lag: Annotated[int, Meta(description="How many records the stage has not worked through.")]


class StageLag(Struct, frozen=True):
    """A stage, the topic that it reads, and by how many records it is behind in all."""

    stage: str
    topic: str
    lag: int
    partitions: list[PartitionLag]


class LagBody(Struct, frozen=True):
    """How far behind the stages are, in the order in which a command comes through them."""

    at: Time
    stages: list[StageLag]


class LagReader:
    """Reads the lag of all stages."""

    def __init__(self, app: App, operations: Operations, progress: LogProgress) -> None:
        self._app = app
        self._operations = operations
        self._progress = progress
        self.now: Coalescer[None, LagBody] = Coalescer(self._read)
        """Returns the current lag. One query answers several callers that ask at the same moment.

        Raises:
            DatabaseUnavailable: PostgreSQL is unavailable.
            KafkaError, TimeoutError: Kafka does not return the ends of its logs.
        """

    async def _read(self, callers: Sequence[None]) -> Sequence[LagBody]:
        # Positions are read before the ends of their topics; otherwise a stage could appear to be ahead of its topic.
        read = await self._operations.checkpoints()
        async with asyncio.timeout(KAFKA_ANSWERS_WITHIN_S):
            stages = [
                await self._stage_lag(stage, topic, read)
                for stage, topic in TOPICS_OF_STAGES.items()
                if stage == DECIDES or stage in read
            ]
        return [LagBody(rfc3339_of(datetime.now(UTC)), stages)] * len(callers)

    async def _stage_lag(self, stage: str, topic: str, read: Mapping[str, Mapping[int, Read]]) -> StageLag:
        log_ends = self._app.log_ends
        ends = await log_ends.ends(topic, range(self._app.settings.partitions))
        if stage == DECIDES:
            done = await self._decided(ends, read.get(NEXT, {}))
        else:
            done = {number: checkpoint.offset + 1 for number, checkpoint in read[stage].items()}
        rows = [
            PartitionLag(number, end, await log_ends.left(topic, number, done.get(number, 0), end))
            for number, end in sorted(ends.items())
        ]
        return StageLag(stage, topic, sum(row.lag for row in rows), rows)

    async def _decided(self, ends: Mapping[int, int], written: Mapping[int, Read]) -> dict[int, int]:
        """Return up to where partitions are decided.

        Records that the next projection has written are decided; only the other partitions are queried.
        """
        done = {number: checkpoint.command_offset + 1 for number, checkpoint in written.items()}
        rest = [number for number, end in ends.items() if done.get(number, 0) < end]
        if rest:
            with suppress(TimeoutError):
                async with asyncio.timeout(OWNERS_ANSWER_WITHIN_S):
                    for number, offset in (await self._progress.decided_up_to(rest)).items():
                        done[number] = max(offset, done.get(number, 0))
        return done
