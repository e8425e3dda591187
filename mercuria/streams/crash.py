"""Crash-only: a money system does not skip what it did not understand."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from mode.utils.logging import get_logger

EXIT_BUG = os.EX_SOFTWARE

log = get_logger(__name__)


@contextmanager
def crash_on_bug() -> Iterator[None]:
    """End the process at once, before anything is acknowledged, when the block raises.

    Faust would acknowledge the event and go on with the next one. The supervisor starts the worker again, which finds
    everything as it was before the block.
    """
    try:
        yield
    except Exception:
        log.critical(
            "A bug, or a broken part: this worker stops, and starts again where it was.", exc_info=True
        )
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(EXIT_BUG)
