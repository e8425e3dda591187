"""Running several slow actions concurrently."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor


def all_at_once(actions: Iterable[Callable[[], None]], give_up: Callable[[], None] = lambda: None) -> None:
    """Run all actions, each in a thread, and return when all are done.

    Args:
        give_up: is called when an action fails or a signal ends the wait; it must make the others end soon.

    Raises:
        Exception: the exception of the action that failed first; the others have ended too.
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
