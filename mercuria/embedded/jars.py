"""Kafka's jars: which they are, where they are kept, and how they get there.

What starts the broker is code, so every jar is pinned by version and SHA-256 in `kafka.lock`, and nothing gets on
the class path unless it matches. The jars are shared by all data directories of a user.
"""

import hashlib
import os
import tempfile
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from mercuria.embedded.errors import StackError, StackStopped
from mercuria.embedded.files import disk_errors_as_sentences, require_space

KAFKA_VERSION = "4.3.1"
LOCK = Path(__file__).with_name("kafka.lock")

CHUNK_BYTES = 64 * 1024
CONNECTIONS = 6
TIMEOUT_S = 20
ATTEMPTS = 3
SPARE_BYTES = 64 * 1024 * 1024

OnBytes = Callable[[int, int], None]
"""Hears of the download: bytes so far, bytes in all."""


@dataclass(frozen=True, slots=True)
class Jar:
    """One jar as the lock file has it."""

    coordinate: str
    """`group:artifact:version`."""
    size: int
    sha256: str

    @property
    def file_name(self) -> str:
        """How the file is called, here and in the repository."""
        _, artifact, version = self.coordinate.split(":")
        return f"{artifact}-{version}.jar"

    def is_in(self, directory: Path) -> bool:
        """Tell whether `directory` holds this jar, unchanged to the last bit."""
        try:
            content = (directory / self.file_name).read_bytes()
        except OSError:
            return False
        return hashlib.sha256(content).hexdigest() == self.sha256


def read_lock(text: str) -> list[Jar]:
    """Return the jars of a lock file: lines of `group:artifact:version size sha256`, `#` begins a comment."""
    lines = (line.split() for line in text.splitlines() if line and not line.startswith("#"))
    return [Jar(coordinate, int(size), sha256) for coordinate, size, sha256 in lines]


def cache_directory(environ: Mapping[str, str]) -> Path:
    """Return where this user's jars are kept."""
    if environ.get("MERCURIA_CACHE_DIR"):
        base = Path(environ["MERCURIA_CACHE_DIR"])
    else:
        home = Path(environ.get("XDG_CACHE_HOME") or Path(environ.get("HOME") or Path.home()) / ".cache")
        base = home / "mercuria"
    return base.absolute() / f"kafka-{KAFKA_VERSION}"


def ensure_jars(directory: Path, on_bytes: OnBytes, interrupted: threading.Event) -> list[Path]:
    """Return the paths of all jars, after having downloaded those that are missing or are not what they should be.

    Raises:
        StackError: they cannot be had, or what came is not what the lock file says.
    """
    jars = read_lock(LOCK.read_text("utf-8"))
    missing = [jar for jar in jars if not jar.is_in(directory)]
    if missing:
        with disk_errors_as_sentences(directory):
            directory.mkdir(parents=True, exist_ok=True)
            require_space(directory, sum(jar.size for jar in missing) + SPARE_BYTES)
            _Download(directory, missing, on_bytes, interrupted).run()
    return [directory / jar.file_name for jar in jars]


class _Download:
    """The download of some jars, several at a time."""

    def __init__(
        self, directory: Path, jars: list[Jar], on_bytes: OnBytes, interrupted: threading.Event
    ) -> None:
        # Both take a while to import, and are needed for a download only.
        import requests
        from jgo.maven import MavenContext, PythonResolver

        self._directory = directory
        self._jars = jars
        self._total = sum(jar.size for jar in jars)
        self._done = 0
        self._on_bytes = on_bytes
        self._interrupted = interrupted
        self._lock = threading.Lock()
        # jgo knows the repository and its layout.
        self._maven = MavenContext(resolver=PythonResolver(), repo_cache=directory)
        self._requests = requests

    def run(self) -> None:
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            downloads = [pool.submit(self._fetch, jar) for jar in self._jars]
            try:
                for download in downloads:
                    download.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _fetch(self, jar: Jar) -> None:
        for attempt in range(ATTEMPTS):
            try:
                return self._fetch_once(jar)
            except self._requests.RequestException as error:
                if attempt + 1 == ATTEMPTS or self._interrupted.is_set():
                    raise StackError(
                        f"Kafka's jars could not be downloaded ({jar.file_name}: {_in_short(error)}):"
                        " the first start needs the network, later ones do not."
                    ) from error

    def _fetch_once(self, jar: Jar) -> None:
        component = self._maven.create_dependency(jar.coordinate).artifact.component
        repository = next(iter(self._maven.remote_repos.values()))
        url = f"{repository}/{component.path_prefix.as_posix()}/{jar.file_name}"
        received = 0
        digest = hashlib.sha256()
        descriptor, temporary = tempfile.mkstemp(dir=self._directory, prefix=f".{jar.file_name}.")
        try:
            with (
                open(descriptor, "wb") as file,
                self._requests.get(url, stream=True, timeout=TIMEOUT_S) as answer,
            ):
                answer.raise_for_status()
                for chunk in answer.iter_content(CHUNK_BYTES):
                    if self._interrupted.is_set():
                        raise StackStopped
                    file.write(chunk)
                    digest.update(chunk)
                    received += len(chunk)
                    self._advance(len(chunk))
            if digest.hexdigest() != jar.sha256:
                raise StackError(
                    f"What came as {jar.file_name} is not what Mercuria was made with"
                    f" (SHA-256 {digest.hexdigest()}, expected {jar.sha256}); it was thrown away."
                )
            # Two starts at once download twice; either file is the right one.
            os.replace(temporary, self._directory / jar.file_name)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            self._advance(-received)
            raise

    def _advance(self, count: int) -> None:
        with self._lock:
            self._done += count
            self._on_bytes(self._done, self._total)


def _in_short(error: Exception) -> str:
    """Name the innermost reason: the outer ones repeat it with addresses of objects."""
    while error.__cause__ or error.__context__:
        cause = error.__cause__ or error.__context__
        if not isinstance(cause, Exception):
            break
        error = cause
    return str(error) or type(error).__name__
