"""The log file of one part, with rotation."""

import shutil
from pathlib import Path
from typing import IO

from mercuria.embedded.files import open_privately

MAX_BYTES = 16 * 1024 * 1024
TAIL_BYTES = 32 * 1024


class LogFile:
    """A log that a process appends to, with one older generation beside it (`kafka.log`, `kafka.log.1`)."""

    def __init__(self, path: Path, max_bytes: int = MAX_BYTES) -> None:
        self.path = path
        self._max_bytes = max_bytes

    def open(self) -> IO[bytes]:
        """Open the log for a process to append to."""
        return open(self.path, "ab", buffering=0, opener=open_privately)

    def rotate(self) -> None:
        """Rotate the log if it is long.

        The content is copied and the file truncated, since the process keeps it open. It was opened for
        appending, so the next line is written at the beginning. Lines written in between are lost, which is
        acceptable for logs.
        """
        if self.path.exists() and self.path.stat().st_size > self._max_bytes:
            older = self.path.with_name(f"{self.path.name}.1")
            with open(older, "wb", opener=open_privately):
                pass
            shutil.copyfile(self.path, older)
            with open(self.path, "r+b") as file:
                file.truncate()

    def last_lines(self, count: int) -> list[str]:
        """Return the last lines, the oldest first."""
        if not self.path.exists():
            return []
        with open(self.path, "rb") as file:
            file.seek(max(0, self.path.stat().st_size - TAIL_BYTES))
            text = file.read().decode("utf-8", "replace")
        return text.splitlines()[-count:]
