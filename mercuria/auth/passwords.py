"""Passwords: the rules for new ones, and the hashes that are stored.

The rules follow NIST SP 800-63B: a minimum and a generous maximum length, no required character classes, no
password that is common or guessable from the account; comparison uses Unicode's NFKC. A new password must be
text that can be typed again: as in RFC 8265 (OpaqueString), control characters and lone surrogates are
rejected. A hash is bcrypt of the password's SHA-256 in base64, since bcrypt itself reads no byte beyond the
72nd, and none beyond a zero.

The work runs in a few dedicated threads with a bounded queue: one hash occupies a processor for a quarter of
a second.
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
"""The maximum number of calls that wait for a thread. A further client is asked to retry later."""
LOOKED_AT_CHARACTERS = 24
"""How many characters are searched for common words: each further character makes the search much longer."""
GUESSES_WANTED = 1_000_000
"""The minimum number of guesses that a password must withstand. The limit of an account makes so many guesses
take two months."""

T = TypeVar("T")


class Passwords:
    """Checks, hashes and compares passwords. Each call returns a problem if too many calls are waiting.

    Args:
        cost: the binary logarithm of bcrypt's rounds.
        min_characters: the minimum length of a password.
    """

    def __init__(self, cost: int, min_characters: int = 8) -> None:
        self.computed = 0
        """The number of hashes computed."""
        self._cost = cost
        self._prefix = f"$2b${cost:02}$"
        self._min_characters = min_characters
        # Without an account, passwords are compared with this hash: the work is the same, and no password matches.
        self._no_hash = bcrypt.gensalt(cost).decode("ascii") + secrets.token_hex(16)[:31]
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="passwords")
        self._places = threading.BoundedSemaphore(THREADS + WAITING)
        # zxcvbn keeps the state of a search where the next search finds it.
        self._search = threading.Lock()

    async def weakness(self, password: str, words: Sequence[str]) -> Problem | None:
        """Return why a new password is too weak, or None. `words` are known facts about the user."""
        return await self._in_thread(self._weakness, password, words)

    async def hash(self, password: str) -> str | Problem:
        """Return the hash of a password that is to be stored."""
        self.computed += 1
        return await self._in_thread(_hash, password, self._cost)

    async def matches(self, password: str, kept: str | None) -> bool | Problem:
        """Return whether `kept` is the hash of a password. None, for no account, takes as long."""
        self.computed += 1
        matches = await self._in_thread(_matches, password, kept or self._no_hash)
        return matches if kept is not None or isinstance(matches, Problem) else False

    def is_outdated(self, kept: str) -> bool:
        """Return whether a hash has another cost than the configured one."""
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
        # Not at the end of the await: the work of a cancelled request goes on in its thread.
        running.add_done_callback(lambda _: self._places.release())
        return await asyncio.wrap_future(running)


def is_text(password: str) -> bool:
    """Return whether a password has neither control characters nor lone surrogates."""
    return not any(unicodedata.category(character) in ("Cc", "Cs") for character in password)


def parse_line(line: bytes) -> str | None:
    """Return the password in a line of input, without line end and byte order mark; None if not UTF-8."""
    try:
        return line.decode("utf-8").removeprefix("\ufeff").rstrip("\r\n")
    except UnicodeDecodeError:
        return None


def _hash(password: str, cost: int) -> str:
    return bcrypt.hashpw(_digest(password), bcrypt.gensalt(cost)).decode("ascii")


def _matches(password: str, kept: str) -> bool:
    return bcrypt.checkpw(_digest(password), kept.encode("ascii"))


def _digest(password: str) -> bytes:
    # JSON can hold a lone surrogate, which UTF-8 cannot encode.
    content = _normal(password).encode("utf-8", "surrogatepass")
    return base64.b64encode(hashlib.sha256(content).digest())


def _normal(password: str) -> str:
    return unicodedata.normalize("NFKC", password)


def _problem(code: str, detail: str) -> Problem:
    return Problem(code, detail, [FieldError("password", code, detail)])
