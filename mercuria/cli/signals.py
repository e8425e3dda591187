"""Signal handling: SIGTERM and SIGHUP end a command like Ctrl-C, so open resources are closed."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_ENDING = (signal.SIGTERM, signal.SIGHUP)


class Signals:
    """The signal that has asked the command to end."""

    def __init__(self) -> None:
        self._first: int | None = None

    @property
    def came(self) -> bool:
        """Whether a signal has arrived."""
        return self._first is not None

    @property
    def exit_code(self) -> int:
        """The exit code that a shell expects of a program ended by a signal: 128 plus the signal's number."""
        return 128 + (self._first or signal.SIGINT)

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Pass a signal on to the current handler of Ctrl-C: Python itself, asyncio, or the command."""
        self._first = self._first or number
        interrupt = signal.getsignal(signal.SIGINT)
        # A shell starts background processes with SIGINT ignored.
        if callable(interrupt):
            interrupt(signal.SIGINT, frame)
        else:
            raise KeyboardInterrupt


@contextmanager
def ending_signals() -> Iterator[Signals]:
    """Have SIGTERM and SIGHUP end the block like Ctrl-C, with `KeyboardInterrupt`.

    A signal that the parent process has set to be ignored stays ignored, as `nohup` requires.
    """
    signals = Signals()
    before = {}
    for number in _ENDING:
        if signal.getsignal(number) is signal.SIG_DFL:
            before[number] = signal.signal(number, signals.handle)
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
