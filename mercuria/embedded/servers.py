"""The servers of a stack: Kafka, PostgreSQL and Redis, as far as none of them is external."""

from collections.abc import Callable
from functools import partial

from mercuria.embedded.concurrency import run_concurrently
from mercuria.embedded.directory import DataDirectory
from mercuria.embedded.environment import Environment
from mercuria.embedded.errors import StackError, StackStopped
from mercuria.embedded.files import disk_errors_as_sentences
from mercuria.embedded.jars import OnBytes
from mercuria.embedded.kafka import Kafka
from mercuria.embedded.part import Part
from mercuria.embedded.ports import Ports
from mercuria.embedded.postgres import Postgres
from mercuria.embedded.redis import Redis
from mercuria.embedded.supervisor import Supervisor


class Servers:
    """The servers that one stack starts, which run independently of each other; None for an external one.

    Args:
        report: is called with each progress message, a sentence.
    """

    def __init__(
        self,
        directory: DataDirectory,
        environment: Environment,
        ports: Ports,
        supervisor: Supervisor,
        report: Callable[[str], None],
        on_download: OnBytes,
    ) -> None:
        self.kafka: Kafka | None = None
        self.postgres: Postgres | None = None
        self.redis: Redis | None = None
        self._directory = directory
        self._environment = environment
        self._supervisor = supervisor
        self._report = report
        environ, interrupted = environment.variables, supervisor.interrupted
        if not environment.is_external("MERCURIA_KAFKA", ports.get("kafka")):
            port, controller = ports.choose("kafka"), ports.choose("kafka-controller")
            self.kafka = Kafka(directory, port, controller, interrupted, environ, on_download)
        if not environment.is_external("MERCURIA_DATABASE", ports.get("postgres")):
            self.postgres = Postgres("postgres", directory, ports.choose("postgres"), interrupted)
        if not environment.is_external("MERCURIA_REDIS", ports.get("redis")):
            self.redis = Redis("redis", directory, ports.choose("redis"), interrupted)

    @property
    def own(self) -> list[Part]:
        """The servers that are not external."""
        return [server for server in (self.kafka, self.postgres, self.redis) if server is not None]

    def addresses(self) -> dict[str, str]:
        """Return the addresses of all servers, as settings; the environment has those of external ones."""
        environ = self._environment.variables
        if self.postgres is not None:
            database, owner = self.postgres.url, self.postgres.owner_url
        else:
            database = environ["MERCURIA_DATABASE"]
            owner = environ.get("MERCURIA_DATABASE_OWNER") or database
        return {
            "MERCURIA_KAFKA": self.kafka.address if self.kafka else environ["MERCURIA_KAFKA"],
            "MERCURIA_DATABASE": database,
            "MERCURIA_DATABASE_OWNER": owner,
            "MERCURIA_REDIS": self.redis.url if self.redis else environ["MERCURIA_REDIS"],
        }

    def start(self, *, supervised: bool) -> None:
        """Start all servers concurrently, and watch them once all are ready.

        Raises:
            StackError: a server does not start; the others then end their start as well.
        """
        starts = (partial(self._start, server) for server in self.own)
        try:
            run_concurrently(starts, self._supervisor.interrupted.set)
        except StackStopped:
            # One server failed first, and the others stopped because of it.
            raise self._supervisor.failure or StackStopped from None
        for server in self.own:
            self._supervisor.watch(server, supervised=supervised)

    def stop(self) -> None:
        """Stop all servers concurrently."""
        run_concurrently(server.stop for server in self.own)

    def _start(self, server: Part) -> None:
        self._report(f"{server.title} is starting.")
        try:
            with disk_errors_as_sentences(self._directory.path):
                server.start()
        except StackStopped:
            raise
        except StackError as error:
            self._supervisor.fail(error)
            raise
        self._report(f"{server.title} is ready at {server.address}.")
