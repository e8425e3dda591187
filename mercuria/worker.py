"""The worker: Faust's app with the connections that agents, tables and views share, and Faust's worker.

`mercuria.app.create_app` registers the agents, tables and views with it.
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

from mercuria.config import Settings, in_url
from mercuria.embedded.files import PRIVATE_UMASK
from mercuria.http.limits import Limits
from mercuria.http.web import Web
from mercuria.kafka.crash import crash_on_bug
from mercuria.kafka.log_ends import LogEnds
from mercuria.kafka.producer import Producer
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
"""How long the worker asks Kafka where its log ends before it goes on reading partitions."""


class Worker(faust.Worker):
    """Faust's worker. It logs its own address even when it logs nothing else."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # The tables hold all wallets of the worker's partitions.
        os.umask(PRIVATE_UMASK)
        super().__init__(*args, **kwargs)
        # The spinner moves the cursor of a terminal, and this output is a log.
        self.spinner = None

    def on_setup_root_logger(self, logger: logging.Logger, level: int) -> None:
        """Log the exception that ends the process as well."""
        set_up()

    async def on_startup_finished(self) -> None:
        """Log that the worker decides commands from now on."""
        await super().on_startup_finished()
        settings = cast(App, self.app).settings
        url = f"http://{in_url(settings.worker_host)}:{settings.http_port}"
        said = f"{settings.worker.capitalize()} is ready at {url}"
        if settings.writes_json_logs:
            log_always(said)
        else:
            print(said, file=self.stdout, flush=True)


class App(faust.App):
    """Faust's app. It declares its topics first, and knows the offsets at which reading resumes."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.redis = connect(settings.redis)
        self.authenticity = Authenticity(settings.leg_key)
        self.redis_cache = Cache(self.redis, self.authenticity)
        """The wallets and transactions that Redis holds."""
        self.database = Database(settings.database)
        self.long_reads = self.database.share(LONG_READS)
        """The database for lists, statements and figures. Its queries leave connections for everything else."""
        self.positions: dict[str, Callable[[Collection[int]], Awaitable[Mapping[int, int]]]] = {}
        """By topic, a function that returns the known offsets at which reading of its partitions resumes."""
        self.worked_through: dict[str, Callable[[], Mapping[int, int]]] = {}
        """By projection, a function that returns its end offsets (exclusive) in this worker's partitions."""
        self.stage_waits: dict[str, Callable[[], str | None]] = {}
        """By projection into PostgreSQL, a function that returns why it is paused; None if it is running."""
        self._recovers_since_s = 0.0
        super().__init__(CONSUMER_GROUP, **_faust_settings(settings))
        self.replies = Replies(settings.redis)
        self.locks = PartitionLocks(self.redis, settings.worker, self._generation, self.own_partitions)
        self.announcer = Announcer(self.redis_cache, self.locks, self.replies)
        self.log_ends = LogEnds(settings.kafka)
        self.skips = Skips(settings.kafka)
        for partition in range(settings.partitions):
            held = metrics.lock_held.labels(partition)
            held.set_function(partial(self.locks.is_held, partition))

    def on_init_dependencies(self) -> Iterable[ServiceT]:
        """Start the services that use Redis with the app, before its agents."""
        services = cast(list[ServiceT], [self.replies, self.locks, self.announcer, self.log_ends, self.skips])
        return [*services, *super().on_init_dependencies()]

    async def resume_at(self, tps: Collection[TP]) -> dict[TP, int]:
        """Return where reading resumes. Missing partitions resume at their committed offsets."""
        offsets: dict[TP, int] = {}
        for topic, ask in self.positions.items():
            partitions = [tp.partition for tp in tps if tp.topic == topic]
            if partitions:
                known = await ask(partitions)
                await self.check_log(topic, known)
                offsets |= {TP(topic, number): offset for number, offset in known.items()}
        return offsets

    async def check_log(self, topic: str, offsets: Mapping[int, int]) -> bool:
        """End the process if a log ends before the offset up to which it was read.

        Returns:
            Whether the log was checked; False if Kafka is unavailable.
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
        """The producer, which can append whole batches."""
        return cast(Producer, self.producer)

    def on_rebalance_return(self) -> None:
        """Note when the worker has received its partitions and begins to recover their tables."""
        self._recovers_since_s = time.monotonic()
        super().on_rebalance_return()

    def on_rebalance_end(self) -> None:
        """Note how long the recovery took."""
        metrics.recovery_s.set(time.monotonic() - self._recovers_since_s)
        super().on_rebalance_end()

    def own_partitions(self) -> list[int]:
        """Return the partitions of the command topic that Kafka has assigned to this worker."""
        try:
            assignment = self.consumer.assignment()
        except ConsumerNotStarted:
            return []
        return [tp.partition for tp in assignment if tp.topic == WALLET_COMMANDS]

    async def know_skips(self) -> None:
        """Wait until this worker knows which records of its current partitions it must skip."""
        await self.skips.up_to_date(self._generation())

    def _generation(self) -> int:
        return self.consumer_generation_id

    def _new_web(self) -> Web:
        settings = self.settings
        limits = Limits(
            body_bytes=settings.max_body_bytes,
            connections=settings.max_connections,
            in_flight=settings.max_in_flight,
        )
        return Web(self, limits, settings.http_port, settings.cors_origins)

    async def on_first_start(self) -> None:
        """Declare the topics before the consumer subscribes to them."""
        settings = self.settings
        await declare_topics(settings.kafka, settings.partitions, settings.replication)
        await migrate_soon(settings.database_owner)
        tracing.start(settings)
        tune_garbage_collection()
        await super().on_first_start()

    async def stop(self) -> None:
        """Stop. Requests in flight end first, because their responses need the services that stop next."""
        if not self.should_stop:
            await cast(Web, self.web).drain()
        await super().stop()
        await tracing.stop()


async def migrate_soon(database_owner: str) -> None:
    """Bring PostgreSQL's schema up to date. Until then, and while PostgreSQL is down, money moves without it.

    Raises:
        MigrationError: the schema cannot be brought up to date.
    """
    try:
        await asyncio.to_thread(migrate, database_owner)
    except DatabaseAway as error:
        logging.getLogger(__name__).warning("%s The schema is looked at when the worker starts again.", error)
    except NotTheOwner as error:
        logging.getLogger(__name__).warning("%s Until then, this worker does without PostgreSQL.", error)


def tune_garbage_collection() -> None:
    """Run the garbage collector less often, and exclude the objects that exist at the start.

    A batch creates thousands of objects, none of which is part of a cycle. Scanning the cached wallets each
    time took a third of a worker's time. The command line has kept the collector off until here.
    """
    gc.freeze()
    gc.enable()
    gc.set_threshold(50_000, 20, 100)


def _faust_settings(settings: Settings) -> dict[str, Any]:
    return {
        "broker": [f"mercuria://{server}" for server in settings.kafka.split(",")],
        "datadir": settings.worker_dir,
        "store": "rocksdb://",
        "topic_partitions": settings.partitions,
        "topic_replication_factor": settings.replication,
        "topic_disable_leader": True,
        "table_standby_replicas": settings.standbys,
        "consumer_auto_offset_reset": "earliest",
        # Some thousand commands. A few fetches of each partition may wait in a queue: an agent takes them all at once.
        "consumer_max_fetch_size": 384 * 1024,
        "stream_buffer_maxsize": 8,
        "producer_max_batch_size": MAX_RECORD_BYTES - 64 * 1024,
        # Compression leaves a fifth of the bytes. It saves Kafka more work than it costs the worker.
        "producer_compression_type": "zstd",
        "producer_max_request_size": 16 * MAX_RECORD_BYTES,
        "broker_commit_interval": 1.0,
        "broker_session_timeout": settings.kafka_session_ms / 1000,
        "broker_heartbeat_interval": settings.kafka_heartbeat_ms / 1000,
        "stream_wait_empty": False,
        "web_bind": settings.http_host,
        "web_port": settings.worker_port,
        "web_host": settings.worker_host,
        "Worker": Worker,
        "logging_config": logging_config(settings),
    }
