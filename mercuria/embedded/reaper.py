"""The reaper of a throwaway stack: a process that ends the stack's parts when the command that started them is gone.

It holds one end of a pipe whose other end only the command has. The kernel closes that end with the command, however
the command ends: SIGKILL, lack of memory, a signal in the middle of its own clean-up. The kernel's own parent-death
signal would not do: it comes with the end of the thread that has started a part, and parts are started by threads.

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
    """The process that waits; `dismiss` ends it when there is nothing to end any more."""

    def __init__(self, data_dir: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mercuria.embedded.reaper", str(data_dir)],
            # Else it would be taken for a part, or work inside a directory that is to be removed.
            env={name: value for name, value in os.environ.items() if name != processes.MARK},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def dismiss(self) -> None:
        """End it, with nothing to do."""
        self._process.kill()
        self._process.wait()
        assert self._process.stdin is not None, "it was opened with a pipe"
        self._process.stdin.close()


def reap(data_dir: Path) -> None:
    """End all that runs for a data directory: the parts in their order, then what is left and carries their mark."""
    directory = DataDirectory(data_dir)
    with suppress(OSError):
        stop_orphans(directory, lambda _: None)
    while left := _marked(directory.path):
        for process in left:
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(left, timeout=10)


def _marked(data_dir: Path) -> list[psutil.Process]:
    """Return all processes that carry the mark of a part; also those that a part has started."""
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
