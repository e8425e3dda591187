"""Kafka's jars: the list of jars, their cache, and their download.

The jars are code, so each is pinned by version and SHA-256 in `kafka.lock`, and only matching jars get on the
class path. All data directories of a user share them.
"""

import hashlib
import os
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mercuria.embedded.errors import StackError, StackStopped
from mercuria.embedded.files import disk_errors_as_sentences, require_space

KAFKA_VERSION = "4.3.1"
LOCK = Path(__file__).with_name("kafka.lock")

CHUNK_BYTES = 64 * 1024
CONNECTIONS = 6
TIMEOUT_S = 20
SILENCE_S = 60
ATTEMPTS = 3
POLL_S = 0.1
SPARE_BYTES = 64 * 1024 * 1024

OnBytes = Callable[[int, int], None]
"""Is called during the download with the bytes so far and the bytes in all."""


@dataclass(frozen=True, slots=True)
class Jar:
    """One jar, as in the lock file."""

    coordinate: str
    """`group:artifact:version`."""
    size: int
    sha256: str

    @property
    def file_name(self) -> str:
        """The file name, locally and in the repository."""
        _, artifact, version = self.coordinate.split(":")
        return f"{artifact}-{version}.jar"

    def is_in(self, directory: Path) -> bool:
        """Return whether `directory` holds this jar with unchanged content."""
        try:
            content = (directory / self.file_name).read_bytes()
        except OSError:
            return False
        return hashlib.sha256(content).hexdigest() == self.sha256


def read_lock(text: str) -> list[Jar]:
    """Return the jars of a lock file: lines of `group:artifact:version size sha256`; `#` begins a comment."""
    lines = (line.split() for line in text.splitlines() if line and not line.startswith("#"))
    return [Jar(coordinate, int(size), sha256) for coordinate, size, sha256 in lines]


def cache_directory(environ: Mapping[str, str]) -> Path:
    """Return the directory of this user's jars."""
    if environ.get("MERCURIA_CACHE_DIR"):
        base = Path(environ["MERCURIA_CACHE_DIR"])
    else:
        home = Path(environ.get("XDG_CACHE_HOME") or Path(environ.get("HOME") or Path.home()) / ".cache")
        base = home / "mercuria"
    return base.absolute() / f"kafka-{KAFKA_VERSION}"


def ensure_jars(
    directory: Path, on_bytes: OnBytes, interrupted: threading.Event, silence_s: float = SILENCE_S
) -> list[Path]:
    """Return the paths of all jars. Download those that are missing or do not match first.

    Raises:
        StackError: the download failed, no data arrived for `silence_s`, or a file does not match the lock
            file.
    """
    jars = read_lock(LOCK.read_text("utf-8"))
    missing = [jar for jar in jars if not jar.is_in(directory)]
    if missing:
        with disk_errors_as_sentences(directory):
            directory.mkdir(parents=True, exist_ok=True)
            require_space(directory, sum(jar.size for jar in missing) + SPARE_BYTES)
            _Download(directory, missing, on_bytes, interrupted).run(silence_s)
    return [directory / jar.file_name for jar in jars]


class _Download:
    """The download of some jars, several at a time."""

    def __init__(
        self, directory: Path, jars: list[Jar], on_bytes: OnBytes, interrupted: threading.Event
    ) -> None:
        # Both take a while to import, and only a download needs them.
        import requests
        from jgo.maven import MavenContext, PythonResolver

        self._directory = directory
        self._jars = jars
        self._waiting = deque(jars)
        self._total = sum(jar.size for jar in jars)
        self._done = 0
        self._on_bytes = on_bytes
        self._interrupted = interrupted
        self._given_up = threading.Event()
        self._error: Exception | None = None
        self._heard_at = time.monotonic()
        self._lock = threading.Lock()
        # jgo knows the repository and its layout.
        self._maven = MavenContext(resolver=PythonResolver(), repo_cache=directory)
        self._requests = requests

    def run(self, silence_s: float) -> None:
        """Download all jars.

        Return at once if a jar is unavailable or the user interrupts, even if the network hangs.

        For this reason, the threads are daemons: a thread that hangs inside a library cannot be ended, only
        abandoned.
        """
        with tempfile.TemporaryDirectory(
            dir=self._directory, prefix=".download-", ignore_cleanup_errors=True
        ) as temporary:
            threads = [
                threading.Thread(target=self._work, args=(Path(temporary),), daemon=True)
                for _ in range(min(CONNECTIONS, len(self._jars)))
            ]
            for thread in threads:
                thread.start()
            try:
                while any(thread.is_alive() for thread in threads):
                    self._check(silence_s)
                    threads[0].join(POLL_S)
            finally:
                self._given_up.set()
        if self._error is not None:
            raise self._error

    def _check(self, silence_s: float) -> None:
        if self._interrupted.is_set():
            raise StackStopped
        if self._error is not None:
            raise self._error
        if time.monotonic() > self._heard_at + silence_s:
            raise _unavailable(f"nothing has come for {silence_s:.0f} seconds")

    def _work(self, temporary: Path) -> None:
        try:
            while not self._given_up.is_set():
                self._fetch(self._waiting.popleft(), temporary)
        except IndexError:
            pass  # Other threads have taken the last ones.
        except Exception as error:
            self._error = self._error or error

    def _fetch(self, jar: Jar, temporary: Path) -> None:
        for attempt in range(ATTEMPTS):
            try:
                return self._fetch_once(jar, temporary / jar.file_name)
            except self._requests.RequestException as error:
                if attempt + 1 == ATTEMPTS:
                    raise _unavailable(f"{jar.file_name}: {_in_short(error)}") from error

    def _fetch_once(self, jar: Jar, temporary: Path) -> None:
        component = self._maven.create_dependency(jar.coordinate).artifact.component
        repository = next(iter(self._maven.remote_repos.values()))
        url = f"{repository}/{component.path_prefix.as_posix()}/{jar.file_name}"
        received = 0
        digest = hashlib.sha256()
        try:
            with (
                open(temporary, "wb") as file,
                self._requests.get(url, stream=True, timeout=TIMEOUT_S) as answer,
            ):
                answer.raise_for_status()
                for chunk in answer.iter_content(CHUNK_BYTES):
                    if self._given_up.is_set():
                        return
                    file.write(chunk)
                    digest.update(chunk)
                    received += len(chunk)
                    self._advance(len(chunk))
            if digest.hexdigest() != jar.sha256:
                raise StackError(
                    f"What came as {jar.file_name} is not what Mercuria was made with"
                    f" (SHA-256 {digest.hexdigest()}, expected {jar.sha256}); it was thrown away."
                )
            # Two concurrent starts download the file twice; either copy is correct.
            os.replace(temporary, self._directory / jar.file_name)
        except BaseException:
            self._advance(-received)
            raise

    def _advance(self, count: int) -> None:
        with self._lock:
            self._done += count
            self._heard_at = time.monotonic()
            if not self._given_up.is_set():
                self._on_bytes(self._done, self._total)


def _unavailable(why: str) -> StackError:
    return StackError(
        f"Kafka's jars could not be downloaded ({why}): the first start needs the network, later ones do not."
    )


def _in_short(error: Exception) -> str:
    """Return the innermost reason: the outer ones repeat it with addresses of objects."""
    while error.__cause__ or error.__context__:
        cause = error.__cause__ or error.__context__
        if not isinstance(cause, Exception):
            break
        error = cause
    return str(error) or type(error).__name__
