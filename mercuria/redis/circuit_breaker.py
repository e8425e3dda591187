"""A circuit breaker: after a server did not answer, calls fail at once for a while instead of waiting."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

OPEN_S = 3.0


class CircuitOpen(TimeoutError):
    """The circuit is open: the server did not answer recently, and is not called again yet."""


class CircuitBreaker:
    """Makes calls to a server that did not answer fail at once, for a while.

    Args:
        errors: the errors that a call raises if the server is unavailable.
    """

    def __init__(self, errors: tuple[type[Exception], ...], for_s: float = OPEN_S) -> None:
        self._errors = errors
        self._for_s = for_s
        self._until_s = 0.0

    @contextmanager
    def unless_away(self) -> Iterator[None]:
        """Run the block, which calls the server, unless the circuit is open.

        Raises:
            CircuitOpen: the circuit is open, and the block is not run.
        """
        if time.monotonic() < self._until_s:
            raise CircuitOpen
        try:
            yield
        except self._errors:
            self._until_s = time.monotonic() + self._for_s
            raise
