"""Running several slow actions concurrently."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor


def run_concurrently(
    actions: Iterable[Callable[[], None]], cancel: Callable[[], None] = lambda: None
) -> None:
    """Run all actions, each in a thread, and return when all are done.

    Args:
        cancel: is called when an action fails or a signal ends the wait; it must make the others end soon.

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
            cancel()
            raise
