"""A circuit breaker: a server that did not answer is not asked again for a while, and callers do not wait for it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

OPEN_S = 3.0


class CircuitOpen(TimeoutError):
    """The circuit is open: the server did not answer a moment ago, and is not asked again yet."""


class CircuitBreaker:
    """Spares callers the wait for a server that did not answer, for a while.

    Args:
        errors: what asking it raises when it is away.
    """

    def __init__(self, errors: tuple[type[Exception], ...], for_s: float = OPEN_S) -> None:
        self._errors = errors
        self._for_s = for_s
        self._until_s = 0.0

    @contextmanager
    def unless_away(self) -> Iterator[None]:
        """Carry out the block, which asks the server, unless that did not answer lately.

        Raises:
            CircuitOpen: it did not; the block is not carried out.
        """
        if time.monotonic() < self._until_s:
            raise CircuitOpen
        try:
            yield
        except self._errors:
            self._until_s = time.monotonic() + self._for_s
            raise
