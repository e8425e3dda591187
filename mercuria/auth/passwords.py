"""Passwords: which are good enough, and the hashes that are kept of them.

Rules as in NIST SP 800-63B: a least and a generous greatest length, no demands on kinds of characters, nothing that is
commonly used or guessed from the account; compared as Unicode's NFKC. A new one is text that can be typed again: as in
RFC 8265 (OpaqueString), control characters are refused, and lone surrogates. A hash is bcrypt's of the password's
SHA-256 in base64, since bcrypt itself reads no byte beyond the 72nd, and none beyond a zero.

All of it runs in a few threads of its own with a bounded queue: a hash takes a processor for a quarter of a second.
"""

import asyncio
import base64
import hashlib
import secrets
import threading
import unicodedata
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import bcrypt
from zxcvbn import zxcvbn

from mercuria.http.problems import FieldError, Problem

MAX_CHARACTERS = 128
THREADS = 2
WAITING = 32
"""How many may wait for a thread; who comes then is told to come again."""
LOOKED_AT_CHARACTERS = 24
"""How much of a password is searched for common words: the search gets much longer with each character."""
GUESSES_WANTED = 1_000_000
"""A password that is guessed sooner is refused; with the limit for an account, so many guesses take two months."""

T = TypeVar("T")


class Passwords:
    """Judges, hashes and compares passwords. Each call returns a problem where too many are waiting.

    Args:
        cost: the binary logarithm of bcrypt's rounds.
        min_characters: how long a password is at least.
    """

    def __init__(self, cost: int, min_characters: int = 8) -> None:
        self.computed = 0
        """How many hashes were computed."""
        self._cost = cost
        self._prefix = f"$2b${cost:02}$"
        self._min_characters = min_characters
        # Compared with where there is no account: the same work, and no password fits.
        self._no_hash = bcrypt.gensalt(cost).decode("ascii") + secrets.token_hex(16)[:31]
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="passwords")
        self._places = threading.BoundedSemaphore(THREADS + WAITING)
        # zxcvbn keeps what belongs to one search where the next one finds it.
        self._search = threading.Lock()

    async def weakness(self, password: str, words: Sequence[str]) -> Problem | None:
        """Return why a new password is not good enough, or None. `words` are what is known of the person."""
        return await self._in_thread(self._weakness, password, words)

    async def hash(self, password: str) -> str | Problem:
        """Return what is kept of a password."""
        self.computed += 1
        return await self._in_thread(_hash, password, self._cost)

    async def matches(self, password: str, kept: str | None) -> bool | Problem:
        """Return whether a password is the one that `kept` is the hash of; None, for no account, takes as long."""
        self.computed += 1
        matches = await self._in_thread(_matches, password, kept or self._no_hash)
        return matches if kept is not None or isinstance(matches, Problem) else False

    def is_outdated(self, kept: str) -> bool:
        """Return whether a hash was made at another cost than is wanted now."""
        return not kept.startswith(self._prefix)

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(cancel_futures=True)

    def _weakness(self, password: str, words: Sequence[str]) -> Problem | None:
        if not is_text(password):
            return _problem(
                "password_not_text", "It must have no control characters, and whole characters only."
            )
        text = _normal(password[: MAX_CHARACTERS + 1])
        if len(text) < self._min_characters:
            return _problem("password_too_short", f"It must have at least {self._min_characters} characters.")
        if len(password) > MAX_CHARACTERS:
            return _problem("password_too_long", f"It must have at most {MAX_CHARACTERS} characters.")
        with self._search:
            found = zxcvbn(text[:LOOKED_AT_CHARACTERS], user_inputs=[*words, "mercuria"])
        if found["guesses"] < GUESSES_WANTED:
            return _problem("password_too_common", "It is too easy to guess: choose a longer or rarer one.")
        return None

    async def _in_thread(self, work: Callable[..., T], *arguments: Any) -> T | Problem:
        if not self._places.acquire(blocking=False):
            return Problem("overloaded")
        running: Future[T] = self._threads.submit(work, *arguments)
        # Not at the end of the await: a request that is given up leaves its work in the thread.
        running.add_done_callback(lambda _: self._places.release())
        return await asyncio.wrap_future(running)


def is_text(password: str) -> bool:
    """Return whether a password has neither control characters nor lone surrogates."""
    return not any(unicodedata.category(character) in ("Cc", "Cs") for character in password)


def parse_line(line: bytes) -> str | None:
    """Return the password in a line of input, without its end and a byte order mark; None where it is not UTF-8."""
    try:
        return line.decode("utf-8").removeprefix("\ufeff").rstrip("\r\n")
    except UnicodeDecodeError:
        return None


def _hash(password: str, cost: int) -> str:
    return bcrypt.hashpw(_digest(password), bcrypt.gensalt(cost)).decode("ascii")


def _matches(password: str, kept: str) -> bool:
    return bcrypt.checkpw(_digest(password), kept.encode("ascii"))


def _digest(password: str) -> bytes:
    # A lone surrogate, which JSON can hold, is no text that UTF-8 knows.
    content = _normal(password).encode("utf-8", "surrogatepass")
    return base64.b64encode(hashlib.sha256(content).digest())


def _normal(password: str) -> str:
    return unicodedata.normalize("NFKC", password)


def _problem(code: str, detail: str) -> Problem:
    return Problem(code, detail, [FieldError("password", code, detail)])
