"""The supervisor: watches the parts of a stack, restarts those that end, and gives up on a crash loop."""

import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from mercuria.embedded.errors import StackError, StackStopped
from mercuria.embedded.files import require_space
from mercuria.embedded.part import Part

WATCH_S = 0.2
CRASHES_ALLOWED = 5
CRASHES_WINDOW_S = 60.0
LONGEST_BACKOFF_S = 5.0


class Supervisor:
    """Watches each part in a thread of its own, from `watch` to `stop`.

    Args:
        data_dir: is checked for space when a part crashes repeatedly.
        report: is called with each progress message, a sentence.
    """

    def __init__(self, data_dir: Path, report: Callable[[str], None]) -> None:
        self.interrupted = threading.Event()
        """Is set when the stack must end: by a signal, or because a part failed."""
        self.failure: StackError | None = None
        """The error because of which the stack ends; the first one counts."""
        self._data_dir = data_dir
        self._report = report
        self._watchers: list[threading.Thread] = []

    def watch(self, part: Part, *, supervised: bool) -> None:
        """Watch a part that was launched, and restart it if `supervised`."""
        part.supervised = supervised
        watcher = threading.Thread(target=self._watch_until_stopped, args=(part,), name=f"watch-{part.name}")
        watcher.daemon = True
        watcher.start()
        self._watchers.append(watcher)

    def fail(self, error: StackError) -> None:
        """End the stack because of an error."""
        self.failure = self.failure or error
        self.interrupted.set()

    def wait(self) -> None:
        """Wait until `interrupted`.

        Raises:
            StackError: a part dies repeatedly.
        """
        while not self.interrupted.wait(WATCH_S):
            pass
        if self.failure is not None:
            raise self.failure

    def stop(self) -> None:
        """End the watching; no part is restarted any more."""
        self.interrupted.set()
        for watcher in self._watchers:
            watcher.join()

    def reset(self) -> None:
        """Forget the failure of a stopped stack, which can then be started again."""
        self._watchers, self.failure = [], None
        self.interrupted.clear()

    def _watch_until_stopped(self, part: Part) -> None:
        """Restart a part whenever it dies, until it dies too often."""
        crashes: deque[float] = deque()
        while not self.interrupted.wait(WATCH_S):
            # A full disk must not end the monitoring as well; the log is truncated when there is space again.
            with suppress(OSError):
                part.log.rotate()
            if part.is_alive() or not part.wanted or not part.supervised:
                continue
            self._report(part.with_log(f"{part.title} ended ({part.ending()})"))
            _count_crash(crashes, part)
            if len(crashes) > CRASHES_ALLOWED:
                self.fail(self._crash_loop(part, len(crashes)))
            elif not self.interrupted.wait(backoff_s(len(crashes))):
                self._start_again(part)

    def _start_again(self, part: Part) -> None:
        self._report(f"{part.title} is starting again.")
        try:
            part.relaunch()
            part.wait_ready()
        except StackStopped:
            return
        except (StackError, OSError) as error:
            # When the part has ended, the watcher notices and reports it.
            if part.is_alive() or isinstance(error, OSError):
                self._report(str(error))
            return
        self._report(f"{part.title} is ready again.")

    def _crash_loop(self, part: Part, crashes: int) -> StackError:
        within = f"{part.title} ended {crashes} times within {CRASHES_WINDOW_S:.0f} seconds and was given up"
        try:
            require_space(self._data_dir)
        except StackError as full:
            return StackError(f"{within}. {full}")
        return StackError(part.with_log(within))


def backoff_s(crashes: int) -> float:
    """Return how long to wait before a part is restarted: not at all at first, then progressively longer."""
    return 0.0 if crashes <= 1 else min(0.25 * 2**crashes, LONGEST_BACKOFF_S)


def _count_crash(crashes: deque[float], part: Part) -> None:
    """Add the end of a part to its crashes, unless it was killed, and drop those before the window."""
    if not _was_killed(part):
        crashes.append(time.monotonic())
    while crashes and crashes[0] < time.monotonic() - CRASHES_WINDOW_S:
        crashes.popleft()


def _was_killed(part: Part) -> bool:
    """Return whether another process killed a working part: no program kills itself in this way."""
    return part.was_ready and part.exit_code == -signal.SIGKILL
