"""Signals during a clean-up that must come to its end."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def signals_ignored() -> Iterator[None]:
    """Let the block come to its end although Ctrl-C is pressed again; elsewhere than in the main thread, do nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # Not SIG_IGN, which processes that are started meanwhile would inherit.
    before = {number: signal.signal(number, lambda *_: None) for number in _ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            # One that was not set by Python cannot be set again.
            if handler is not None:
                signal.signal(number, handler)
