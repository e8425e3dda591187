"""What a pseudo-terminal shows."""

import os
import select
import time


def read_until(terminal: int, words: bytes, timeout_s: float = 120) -> bytes:
    """Return what a terminal shows up to some words; an assertion fails where they do not come."""
    shown, deadline_s = b"", time.monotonic() + timeout_s
    while words not in shown:
        ready, _, _ = select.select([terminal], [], [], max(0, deadline_s - time.monotonic()))
        assert ready, f"{words!r} did not come, but {shown!r}"
        try:
            shown += os.read(terminal, 4096)
        except OSError:
            raise AssertionError(f"{words!r} did not come, but {shown!r}") from None
    return shown
