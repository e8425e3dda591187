"""Turns: long tasks of a user run one after the other, and the tasks of all users run one piece at a time.

A piece is short. While it runs, nothing else in this process does; after it, other tasks get the event loop
for as long as the piece took. So the longest delay that statements cause is that of one piece, whether one or
thirty of them are in progress, and no statement waits for the end of another user's statement.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from typing import TypeVar
from uuid import UUID

T = TypeVar("T")


class TooManyError(Exception):
    """Too many tasks of a user are waiting, or a task has waited for too long."""


class Turn:
    """A user's turn. The caller must end it; ending it again has no effect."""

    def __init__(self, end: Callable[[], None]) -> None:
        self._end: Callable[[], None] | None = end

    def end(self) -> None:
        """Let the user's next task begin."""
        end, self._end = self._end, None
        if end is not None:
            end()


class Turns:
    """Grants turns.

    Args:
        waiting: how many tasks of one user may wait.
        patience_s: for how long each of them waits.
    """

    def __init__(self, waiting: int, patience_s: float) -> None:
        self._waiting = waiting
        self._patience_s = patience_s
        self._asked: Counter[UUID] = Counter()
        self._of_users: dict[UUID, asyncio.Lock] = {}
        self._piece = asyncio.Lock()

    async def take(self, user_id: UUID) -> Turn:
        """Wait for the turn of a user, in the order of the calls.

        Raises:
            TooManyError: too many tasks of this user are waiting, or the wait took too long.
        """
        if self._asked[user_id] > self._waiting:
            raise TooManyError
        lock = self._of_users.setdefault(user_id, asyncio.Lock())
        self._asked[user_id] += 1
        try:
            async with asyncio.timeout(self._patience_s):
                await lock.acquire()
        except TimeoutError:
            self._forget(user_id)
            raise TooManyError from None
        except BaseException:
            self._forget(user_id)
            raise

        def end() -> None:
            lock.release()
            self._forget(user_id)

        return Turn(end)

    def _forget(self, user_id: UUID) -> None:
        self._asked[user_id] -= 1
        if not self._asked[user_id]:
            del self._asked[user_id], self._of_users[user_id]

    def piece(self) -> asyncio.Lock:
        """Return the lock that is held while a piece is read and made.

        It is granted in the order of the calls.
        """
        return self._piece

    async def make(self, make: Callable[[], T]) -> T:
        """Make a piece; then yield to other tasks for as long as that took."""
        began_s = time.perf_counter()
        made = make()
        await asyncio.sleep(time.perf_counter() - began_s)
        return made
