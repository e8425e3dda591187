"""The Faust app: where Mercuria's agents, tables and web views meet.

`mercuria worker` runs it, and so does `faust -A mercuria.app worker`.
"""

import asyncio
import gc
import logging
import os
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from functools import partial
from typing import Any, cast

import faust
from aiokafka.errors import KafkaError
from faust.exceptions import ConsumerNotStarted
from faust.types import TP
from mode import ServiceT

from mercuria.config import current_settings, in_url
from mercuria.embedded.files import PRIVATE_UMASK
from mercuria.http.limits import Limits
from mercuria.http.web import Web
from mercuria.kafka.crash import crash_on_bug
from mercuria.kafka.log_ends import LogEnds
from mercuria.kafka.producer import Producer
from mercuria.kafka.schema import BatchSchema
from mercuria.kafka.skips import Skips
from mercuria.kafka.topic_setup import declare_topics
from mercuria.observability import metrics
from mercuria.observability.log_lines import log_always, logging_config, set_up
from mercuria.observability.tracing import tracing
from mercuria.postgres.database import LONG_READS, Database
from mercuria.postgres.migrate import DatabaseAway, NotTheOwner, migrate
from mercuria.redis.announcer import Announcer
from mercuria.redis.authenticity import Authenticity
from mercuria.redis.cache import Cache
from mercuria.redis.client import connect
from mercuria.redis.leases import PartitionLocks
from mercuria.redis.replies import Replies
from mercuria.topics import CONSUMER_GROUP, MAX_RECORD_BYTES, WALLET_COMMANDS

CHECK_WITHIN_S = 2.0
"""Kafka is asked for so long where its log ends, before partitions are read on."""

settings = current_settings()
redis = connect(settings.redis)
authenticity = Authenticity(settings.leg_key)
cache = Cache(redis, authenticity)
database = Database(settings.database)
long_reads = database.share(LONG_READS)
"""The database for lists, statements and figures, which leave connections for all else."""

PARTS = ("mercuria.agents", "mercuria.tables", "mercuria.web")
"""Where agents, tables and views are found."""


class Worker(faust.Worker):
    """Faust's worker, which says where it answers also where it says nothing else."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Its tables hold all wallets of its partitions.
        os.umask(PRIVATE_UMASK)
        super().__init__(*args, **kwargs)
        # It moves the cursor of a terminal, in what is a log.
        self.spinner = None

    def on_setup_root_logger(self, logger: logging.Logger, level: int) -> None:
        """Log also what ends the process."""
        set_up()

    async def on_startup_finished(self) -> None:
        """Say that commands are decided from now on."""
        await super().on_startup_finished()
        url = f"http://{in_url(settings.worker_host)}:{settings.http_port}"
        said = f"{settings.worker.capitalize()} is ready at {url}"
        if settings.writes_json_logs:
            log_always(said)
        else:
            print(said, file=self.stdout, flush=True)


class App(faust.App):
    """Faust's app, which declares its topics first and knows where to go on reading."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.positions: dict[str, Callable[[Collection[int]], Awaitable[Mapping[int, int]]]] = {}
        """For a topic, what tells the offsets at which reading its partitions goes on, as far as they are known."""
        self.worked_through: dict[str, Callable[[], Mapping[int, int]]] = {}
        """For a stage, what tells up to before which offset it has worked through this worker's partitions."""
        self.stage_waits: dict[str, Callable[[], str | None]] = {}
        """For a stage that keeps PostgreSQL, what tells why it does not go on at the moment; None: it does."""
        self._recovers_since_s = 0.0
        super().__init__(*args, **kwargs)
        self.replies = Replies(settings.redis)
        self.locks = PartitionLocks(redis, settings.worker, self._generation, self.own_partitions)
        self.announcer = Announcer(cache, self.locks, self.replies)
        self.log_ends = LogEnds(settings.kafka)
        self.skips = Skips(settings.kafka)
        for partition in range(settings.partitions):
            held = metrics.lock_held.labels(partition)
            held.set_function(partial(self.locks.is_held, partition))

    def on_init_dependencies(self) -> Iterable[ServiceT]:
        """Start what goes through Redis with the app, before its agents."""
        services = cast(list[ServiceT], [self.replies, self.locks, self.announcer, self.log_ends, self.skips])
        return [*services, *super().on_init_dependencies()]

    async def resume_at(self, tps: Collection[TP]) -> dict[TP, int]:
        """Return where reading goes on; the committed offset says it for partitions that are missing here."""
        offsets: dict[TP, int] = {}
        for topic, ask in self.positions.items():
            partitions = [tp.partition for tp in tps if tp.topic == topic]
            if partitions:
                known = await ask(partitions)
                await self.check_log(topic, known)
                offsets |= {TP(topic, number): offset for number, offset in known.items()}
        return offsets

    async def check_log(self, topic: str, offsets: Mapping[int, int]) -> bool:
        """End the process where a log ends before what was read from it.

        Returns:
            Whether it was checked: Kafka may be away just then.
        """
        with crash_on_bug():
            try:
                async with asyncio.timeout(CHECK_WITHIN_S):
                    await self.log_ends.check(topic, offsets)
            except (KafkaError, TimeoutError) as error:
                logging.getLogger(__name__).warning("Kafka does not say where %s ends: %r", topic, error)
                return False
        return True

    @property
    def batch_producer(self) -> Producer:
        """The producer, with its way to append whole batches."""
        return cast(Producer, self.producer)

    def on_rebalance_return(self) -> None:
        """Note when the worker has its partitions, and begins to bring their tables up to date."""
        self._recovers_since_s = time.monotonic()
        super().on_rebalance_return()

    def on_rebalance_end(self) -> None:
        """Note how long that took."""
        metrics.recovery_s.set(time.monotonic() - self._recovers_since_s)
        super().on_rebalance_end()

    def own_partitions(self) -> list[int]:
        """Return the partitions of the command topic that Kafka has given to this worker."""
        try:
            assignment = self.consumer.assignment()
        except ConsumerNotStarted:
            return []
        return [tp.partition for tp in assignment if tp.topic == WALLET_COMMANDS]

    async def know_skips(self) -> None:
        """Return when this worker knows which records of the partitions that it has now are to be passed over."""
        await self.skips.up_to_date(self._generation())

    def _generation(self) -> int:
        return self.consumer_generation_id

    def _new_web(self) -> Web:
        limits = Limits(
            body_bytes=settings.max_body_bytes,
            connections=settings.max_connections,
            in_flight=settings.max_in_flight,
        )
        return Web(self, limits, settings.http_port, settings.cors_origins)

    def _discovery_modules(self) -> list[str]:
        # Faust would scan the whole package as well, the command line included.
        return list(PARTS)

    def _on_autodiscovery_error(self, name: str) -> None:
        # Faust would go on without the agent.
        raise

    async def on_first_start(self) -> None:
        """Declare the topics before the consumer subscribes to them."""
        await declare_topics(settings.kafka, settings.partitions, settings.replication)
        await migrate_soon()
        tracing.start(settings)
        tune_garbage_collection()
        await super().on_first_start()

    async def stop(self) -> None:
        """Stop. Requests in flight end first, as their answers come through what is stopped then."""
        if not self.should_stop:
            await cast(Web, self.web).drain()
        await super().stop()
        await tracing.stop()


async def migrate_soon() -> None:
    """Bring PostgreSQL's schema up to date; while PostgreSQL is away or behind, money moves without it.

    Raises:
        MigrationError: the schema cannot be brought up to date.
    """
    try:
        await asyncio.to_thread(migrate, settings.database_owner)
    except DatabaseAway as error:
        logging.getLogger(__name__).warning("%s The schema is looked at when the worker starts again.", error)
    except NotTheOwner as error:
        logging.getLogger(__name__).warning("%s Until then, this worker does without PostgreSQL.", error)


def tune_garbage_collection() -> None:
    """Let the collector look less often, and never again at what is there at the start.

    A batch makes thousands of objects, none of which is part of a cycle; looking at the remembered wallets each time
    took a third of a worker's time. The command line has left the collector off until here.
    """
    gc.freeze()
    gc.enable()
    gc.set_threshold(50_000, 20, 100)


app = App(
    CONSUMER_GROUP,
    broker=[f"mercuria://{server}" for server in settings.kafka.split(",")],
    autodiscover=list(PARTS),
    datadir=settings.worker_dir,
    store="rocksdb://",
    topic_partitions=settings.partitions,
    topic_replication_factor=settings.replication,
    topic_disable_leader=True,
    table_standby_replicas=settings.standbys,
    consumer_auto_offset_reset="earliest",
    # Some thousand commands. Of each partition, a few fetches may wait in a queue: an agent takes them all at once.
    consumer_max_fetch_size=384 * 1024,
    stream_buffer_maxsize=8,
    producer_max_batch_size=MAX_RECORD_BYTES - 64 * 1024,
    # A fifth of the bytes, and less work for Kafka than it costs here.
    producer_compression_type="zstd",
    producer_max_request_size=16 * MAX_RECORD_BYTES,
    broker_commit_interval=1.0,
    broker_session_timeout=10.0,
    broker_heartbeat_interval=2.0,
    stream_wait_empty=False,
    web_bind=settings.http_host,
    web_port=settings.worker_port,
    web_host=settings.worker_host,
    Worker=Worker,
    logging_config=logging_config(settings),
)

wallet_commands = app.topic(
    WALLET_COMMANDS,
    schema=BatchSchema(),
    partitions=settings.partitions,
)
