"""Table locks: getting those that workers hold as well, without blocking the workers for long."""

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from psycopg2.errors import DeadlockDetected, LockNotAvailable

TABLE_LOCK_TIMEOUT_S = 1.5
"""How long at a time a transaction that waits for a lock blocks workers. It is longer than `deadlock_timeout`,
after which PostgreSQL cancels a blocking autovacuum."""
TABLE_LOCK_PAUSE_S = 1.0
"""How long workers can pass before the transaction tries again."""

LOCKED = (LockNotAvailable, DeadlockDetected)
"""The errors of a transaction that another session keeps from its locks."""

T = TypeVar("T")


def retry_while_locked(
    attempt: Callable[[], T], within_s: float, log: logging.Logger, waits: str, *arguments: object
) -> T:
    """Run a transaction until it gets its locks; log once, as a warning, that it waits.

    Args:
        attempt: the transaction, with TABLE_LOCK_TIMEOUT_S as its `lock_timeout`.
        waits, arguments: the log message and its arguments.

    Raises:
        LockNotAvailable, DeadlockDetected: another session has held the locks for `within_s`.
    """
    deadline = time.monotonic() + within_s
    report = log.warning
    while True:
        try:
            return attempt()
        except LOCKED:
            if time.monotonic() > deadline:
                raise
        report(waits, *arguments)
        # One warning is enough.
        report = log.debug
        time.sleep(TABLE_LOCK_PAUSE_S)
