"""Doing several slow things at the same time."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor


def all_at_once(actions: Iterable[Callable[[], None]]) -> None:
    """Run all actions, each in a thread, and return when all are done.

    Raises:
        Exception: what the first of those that failed raised; the others have ended too.
    """
    waiting = list(actions)
    if not waiting:
        return
    with ThreadPoolExecutor(len(waiting)) as pool:
        for result in [pool.submit(action) for action in waiting]:
            result.result()
