"""The reaper of a throwaway stack: a process that ends the parts when the starting command is gone.

The reaper holds one end of a pipe, and only the command has the other end. The kernel closes that end with
the command, however the command ends: by SIGKILL, lack of memory, or a signal in the middle of its own
clean-up. The kernel's parent-death signal is not sufficient: it is sent when the thread that started a part
ends, and threads start the parts.

    python -m mercuria.embedded.reaper DATA_DIR
"""

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil

from mercuria.embedded import processes
from mercuria.embedded.directory import DataDirectory
from mercuria.embedded.orphans import stop_orphans


class Reaper:
    """The waiting process; `dismiss` ends it when no part is left to end."""

    def __init__(self, data_dir: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mercuria.embedded.reaper", str(data_dir)],
            # Otherwise it would count as a part, or work inside a directory that is to be removed.
            env={name: value for name, value in os.environ.items() if name != processes.MARK},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def dismiss(self) -> None:
        """End the reaper without ending any part."""
        self._process.kill()
        self._process.wait()
        assert self._process.stdin is not None, "it was opened with a pipe"
        self._process.stdin.close()


def reap(data_dir: Path) -> None:
    """End all processes of a data directory: the parts in order, then all others that carry their mark."""
    directory = DataDirectory(data_dir)
    with suppress(OSError):
        stop_orphans(directory, lambda _: None)
    while left := _marked(directory.path):
        for process in left:
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(left, timeout=10)


def _marked(data_dir: Path) -> list[psutil.Process]:
    """Return all processes that carry the mark of a part, including those that a part has started."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            _, _, where = process.environ().get(processes.MARK, "").partition("@")
            if where == str(data_dir) and processes.is_running(process):
                found.append(process)
    return found


if __name__ == "__main__":
    while sys.stdin.buffer.read(1):
        pass
    reap(Path(sys.argv[1]))
