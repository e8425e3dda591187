"""How a command ends by a signal: SIGTERM and SIGHUP do what Ctrl-C does, so what is open is closed on the way out."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_ENDING = (signal.SIGTERM, signal.SIGHUP)


class Signals:
    """Which signal has asked the command to end."""

    def __init__(self) -> None:
        self._first: int | None = None

    @property
    def came(self) -> bool:
        """Whether one has."""
        return self._first is not None

    @property
    def exit_code(self) -> int:
        """What a shell expects of a program that a signal has ended: 128 and the signal's number."""
        return 128 + (self._first or signal.SIGINT)

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Pass a signal on to what handles Ctrl-C now: Python itself, asyncio, or the command."""
        self._first = self._first or number
        interrupt = signal.getsignal(signal.SIGINT)
        # A shell starts what it puts into the background with SIGINT ignored.
        if callable(interrupt):
            interrupt(signal.SIGINT, frame)
        else:
            raise KeyboardInterrupt


@contextmanager
def ending_signals() -> Iterator[Signals]:
    """Let the block end by SIGTERM and SIGHUP as by Ctrl-C, with `KeyboardInterrupt`.

    A signal that the starter has set to be ignored stays ignored, as `nohup` wants it.
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
