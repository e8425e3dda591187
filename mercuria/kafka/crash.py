"""Crash-only: a worker skips no record that it cannot process, unless an operator says so (`kafka.skips`)."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from mode.utils.logging import get_logger

EXIT_BUG = os.EX_SOFTWARE

log = get_logger(__name__)


class RecordError(Exception):
    """A record cannot be processed. The cause of this error gives the reason."""

    def __init__(self, topic: str, partition: int, offset: int) -> None:
        super().__init__(
            f"The record at topic {topic}, partition {partition}, offset {offset} ends this worker."
        )
        self.place = {"topic": topic, "partition": partition, "offset": offset}


@contextmanager
def crash_on_bug() -> Iterator[None]:
    """End the process at once, before anything is acknowledged, if the block raises.

    Faust would acknowledge the event and continue with the next one. The supervisor restarts the worker,
    which finds the same state as before the block.
    """
    try:
        yield
    except Exception as error:
        said, place = "A bug, or a broken part: this worker stops, and starts again where it was.", {}
        if isinstance(error, RecordError):
            said, place = f"{said} {error} `mercuria skip` passes it over.", error.place
        log.critical(said, exc_info=True, extra=place)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(EXIT_BUG)
