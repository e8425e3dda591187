"""Workers that nothing can be relied on of: they die, freeze, lose partitions and take them from each other.

Each is a real stage with a real relay on a real PostgreSQL. The topics are lists: what is appended and not
acknowledged, never arrives, or arrives when somebody else has the partition, is chance.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing, suppress
from random import Random
from types import SimpleNamespace
from typing import Any

import psycopg2

from mercuria.kafka.cloudevents import envelop_numbered
from mercuria.kafka.producer import Record
from mercuria.kafka.propagation import propagated
from mercuria.kafka.transport import Fetched
from mercuria.projections.checkpoints import Checkpoint
from mercuria.projections.registry import PROJECTIONS
from mercuria.projections.relay import Relay
from mercuria.projections.rows import SourceEvent
from mercuria.projections.store import ProjectionTables
from tests.projections.conftest import runner_of

Topic = list[list[Record]]
"""By partition, what it holds."""

WITHIN_S = 60.0


class AppendError(Exception):
    """Kafka does not say that it has something."""


class Group:
    """A stage in several workers.

    Args:
        log: what they read.
        tables, rows, read: of the stage.
        strikes: how often something happens to them before they are left in peace.
    """

    def __init__(
        self,
        url: str,
        log: Topic,
        tables: Callable[[], ProjectionTables[Any]],
        rows: Callable[[ProjectionTables[Any]], Callable[[dict[int, Checkpoint]], Any]],
        read: Callable[[bytes], tuple[Any, int]],
        random: Random,
        *,
        strikes: int,
    ) -> None:
        self.topic: Topic = [[] for _ in log]
        """What they have told."""
        self.random = random
        self.log = log
        self._url = url
        self._tables, self._rows, self._read = tables, rows, read
        self._strikes = strikes
        self._is_peaceful = False
        self._workers: list[_Worker] = []

    async def run(self) -> None:
        """Let them work until all of the log is in the tables, and all that is told has left the outbox."""
        self._workers = [self._worker(), self._worker()]
        try:
            self._share()
            for _ in range(self._strikes):
                await asyncio.sleep(self.random.uniform(0.01, 0.12))
                self._strike()
            self._is_peaceful = True
            # Somebody has each partition now.
            self._share()
            async with asyncio.timeout(WITHIN_S):
                while True:
                    if self._is_done():
                        break
                    await asyncio.sleep(0.02)
        finally:
            await asyncio.gather(*(worker.die() for worker in self._workers))

    async def append(self, partition: int, records: Sequence[Record]) -> None:
        """Append records, or not."""
        await asyncio.sleep(self.random.uniform(0, 0.05))
        chance = 1.0 if self._is_peaceful else self.random.random()
        if chance < 0.05:
            raise AppendError
        self.topic[partition] += records
        if chance < 0.1:
            raise AppendError

    def checkpoints(self) -> dict[int, Checkpoint]:
        """Return where PostgreSQL says that the stage is."""
        with closing(psycopg2.connect(self._url)) as connection, connection.cursor() as cursor:
            cursor.execute(
                "SELECT partition, read_offset, command_offset, sequence, told, sent FROM positions WHERE stage = %s",
                [self._workers[0].tables.name],
            )
            return {partition: Checkpoint(*checkpoint) for partition, *checkpoint in cursor}

    def _worker(self) -> "_Worker":
        return _Worker(self, self._tables(), self._rows, self._read)

    def _strike(self) -> None:
        """Let something happen."""
        chance = self.random.random()
        if chance < 0.3:
            self._kill(self.random.randrange(len(self._workers)))
        elif chance < 0.8:
            self._share()
        else:
            self._workers[self.random.randrange(len(self._workers))].stand_still(
                self.random.uniform(0.05, 0.3)
            )

    def _kill(self, index: int) -> None:
        """Kill a worker; its last request may still arrive. Another one starts."""
        worker, self._workers[index] = self._workers[index], self._worker()
        worker.killed = asyncio.get_running_loop().create_task(worker.die())
        self._share()

    def _share(self) -> None:
        """Share the partitions out anew; some workers do not hear of it, and go on."""
        checkpoints = self.checkpoints()
        shares: list[set[int]] = [set() for _ in self._workers]
        for partition in range(len(self.log)):
            self.random.choice(shares).add(partition)
        for worker, share in zip(self._workers, shares, strict=True):
            worker.assign(share, checkpoints, is_deaf=not self._is_peaceful and self.random.random() < 0.2)

    def _is_done(self) -> bool:
        for index, worker in enumerate(self._workers):
            if worker.has_ended:
                self._kill(index)
                return False
        checkpoints = self.checkpoints()
        for worker in self._workers:
            worker.compare(checkpoints)
        if not all(
            checkpoints.get(number, Checkpoint()).read == len(log) - 1 for number, log in enumerate(self.log)
        ):
            return False
        outbox = PROJECTIONS[self._workers[0].tables.name].outbox
        with closing(psycopg2.connect(self._url)) as connection, connection.cursor() as cursor:
            cursor.execute(f"SELECT NOT EXISTS (SELECT FROM {outbox})")
            row = cursor.fetchone()
            return row is not None and bool(row[0])


class _Worker:
    def __init__(self, group: Group, tables: ProjectionTables[Any], rows: Any, read: Any) -> None:
        self.tables = tables
        self.killed: asyncio.Task[None] | None = None
        self._group = group
        self._next: dict[int, int] = {}
        self._is_dead = False
        self._awake = asyncio.Event()
        self._awake.set()
        self.runner = runner_of(
            tables,
            rows(tables),
            read,
            self._seek,
            label="rows",
            relay=Relay(self._append),
            seek_takes_s=0.05,
        )
        self._tasks = [asyncio.create_task(self.runner.run()), asyncio.create_task(self._feed())]

    @property
    def has_ended(self) -> bool:
        """Whether it has crashed, as it has to when Kafka does not take something."""
        ended = self._tasks[0].done()
        if ended and not self._tasks[0].cancelled():
            error = self._tasks[0].exception()
            assert isinstance(error, AppendError), error
        return ended

    def assign(self, share: Collection[int], checkpoints: Mapping[int, Checkpoint], *, is_deaf: bool) -> None:
        """Let it have some partitions, and no others."""
        if is_deaf:
            return
        for partition in self._next.keys() - share:
            # A worker that had no record of a partition does not notice that it is gone.
            if self._group.random.random() < 0.7:
                self.runner.forget(partition)
        self._next = {number: checkpoints.get(number, Checkpoint()).read + 1 for number in share}

    def compare(self, checkpoints: Mapping[int, Checkpoint]) -> None:
        """Do what a worker does every few seconds."""
        self.runner.compare({number: checkpoints.get(number, Checkpoint()) for number in self._next})
        for partition, offset in list(self._next.items()):
            follows = checkpoints.get(partition, Checkpoint()).read + 1
            if follows < offset and not self.runner.is_waiting(partition):
                self._next[partition] = follows

    def stand_still(self, for_s: float) -> None:
        """Send and read nothing for a while."""
        self._awake.clear()
        asyncio.get_running_loop().call_later(for_s, self._awake.set)

    async def die(self) -> None:
        """End in the middle of what it does."""
        self._is_dead = True
        self._awake.set()
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with suppress(asyncio.CancelledError, AppendError):
                await task
        self.tables.close()

    async def _append(self, partition: int, records: Sequence[Record]) -> None:
        await self._awake.wait()
        if self._is_dead and self._group.random.random() < 0.5:
            await asyncio.Event().wait()
        await self._group.append(partition, records)
        if self._is_dead:
            # Nobody is there to go on.
            await asyncio.Event().wait()

    async def _seek(self, partition: int, offset: int) -> None:
        if partition in self._next:
            self._next[partition] = offset

    async def _feed(self) -> None:
        """Read its partitions, in pieces."""
        random = self._group.random
        while True:
            await self._awake.wait()
            for partition in list(self._next):
                start = self._next.get(partition, len(self._group.log[partition]))
                piece = self._group.log[partition][start : start + random.randint(1, 12)]
                if not piece:
                    continue
                self._next[partition] = start + len(piece)
                await self.runner.take(partition, records_of(piece, start))
            await asyncio.sleep(random.uniform(0, 0.01))


def records_of(piece: Sequence[Record], start: int) -> Fetched:
    """Return records as a fetch has them."""
    return Fetched(
        [
            SimpleNamespace(offset=offset, value=record.value, key=record.key, headers=record.headers)
            for offset, record in enumerate(piece, start)
        ],
        start,
    )


Content = tuple[bytes | None, bytes | None, list[tuple[str, bytes]]]
"""The key, the value and the headers of a record."""


def without_duplicates(topic: Topic, read: Callable[[bytes], tuple[Any, int]]) -> list[list[Content]]:
    """Return the contents of a topic of numbered events, as who reads it uses them.

    Numbers have to come without a gap, and those that come again with the same content.
    """
    used = []
    for records in topic:
        contents: dict[int, Content] = {}
        for record in records:
            number = read(record.value or b"")[0].sequence
            content = record.key, record.value, record.headers
            if number in contents:
                assert contents[number] == content, f"event {number} comes again as another one"
            else:
                assert number == len(contents) + 1, f"event {number} comes after {len(contents)}"
                contents[number] = content
        used.append(list(contents.values()))
    return used


def straight(
    log: Topic, rows: Any, read: Callable[[bytes], tuple[Any, int]], stage: str
) -> list[list[Content]]:
    """Return what a log has to tell when a stage reads all once, from the beginning to the end."""
    told: defaultdict[int, list[Content]] = defaultdict(list)
    for partition, records in enumerate(log):
        rows.take(
            partition,
            [
                SourceEvent(
                    *read(record.value or b""),
                    offset,
                    record.key,
                    propagated(record.headers, stage, partition, offset),
                )
                for offset, record in enumerate(records)
            ],
        )
        told[partition] = [
            (key, envelop_numbered(event, partition, time_ms), trace)
            for event, time_ms, key, trace in rows.outbound[partition]
        ]
    return [told[partition] for partition in range(len(log))]
