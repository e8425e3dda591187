"""Doing several slow things at the same time."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor


def all_at_once(actions: Iterable[Callable[[], None]], give_up: Callable[[], None] = lambda: None) -> None:
    """Run all actions, each in a thread, and return when all are done.

    Args:
        give_up: called when one fails, or a signal ends the waiting: what asks the others to end soon.

    Raises:
        Exception: what the first of those that failed raised; the others have ended too.
    """
    waiting = list(actions)
    if not waiting:
        return
    with ThreadPoolExecutor(len(waiting)) as pool:
        try:
            for result in [pool.submit(action) for action in waiting]:
                result.result()
        except BaseException:
            give_up()
            raise
