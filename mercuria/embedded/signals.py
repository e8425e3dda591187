"""Signals during a clean-up that must not be interrupted."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def signals_ignored() -> Iterator[None]:
    """Ignore Ctrl-C until the block has ended; outside the main thread, do nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # SIG_IGN is not used, because processes that are started meanwhile would inherit it.
    before = {number: signal.signal(number, lambda *_: None) for number in _ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            # A handler that Python did not set cannot be restored.
            if handler is not None:
                signal.signal(number, handler)
