"""Authenticity: a worker trusts a value in Redis only if a worker of the same installation wrote it there.

Redis has one password, or none, and each client that has it can write. So each value carries a keyed hash
(MAC) over its key in Redis and its content. A value that was changed, was copied from another key, or comes
from another installation counts as missing.

The MAC does not stop a client that can write to Redis from restoring or removing a value that a worker once
wrote under the same key. A value states when it was written, and is not trusted beyond its original lifetime.
Until then, an older balance of the same wallet can be shown again. No money depends on it: wallets decide
from the log alone.
"""

import logging
import time
from collections.abc import Callable
from functools import cached_property
from hashlib import blake2b
from hmac import compare_digest
from typing import Any

from mercuria.observability import metrics

MAC_BYTES = 16
WARN_EVERY_S = 60.0

logger = logging.getLogger(__name__)


class Authenticity:
    """Computes and checks MACs.

    Args:
        leg_key: returns the installation's leg key, from which the key is derived; called on first use.
        on_distrusted: called with each key of Redis whose value no worker of this installation wrote there.
    """

    def __init__(
        self, leg_key: Callable[[], bytes], on_distrusted: Callable[[str], None] | None = None
    ) -> None:
        self._leg_key = leg_key
        self._on_distrusted = on_distrusted or _Warner()

    @cached_property
    def _keyed(self) -> Any:
        # One key must not serve two purposes: legs use the leg key, and this key is derived from it.
        key = blake2b(key=self._leg_key(), person=b"mercuria-redis").digest()
        # Copying a keyed hash state is cheaper than creating a new one.
        return blake2b(key=key, digest_size=MAC_BYTES)

    def mac(self, key: bytes, content: bytes) -> bytes:
        """Return the MAC of the value under a key: 16 bytes. `key` also identifies the kind of value."""
        state = self._keyed.copy()
        # The length separates the key from the content.
        state.update(b"%d:%b%b" % (len(key), key, content))
        digest: bytes = state.digest()
        return digest

    def holds(self, key: bytes, content: bytes, mac: bytes) -> bool:
        """Return whether `mac` is the MAC of `content` under `key`."""
        return compare_digest(self.mac(key, content), mac)

    def distrust(self, key: str) -> None:
        """Report that this installation did not write the value under a key of Redis."""
        self._on_distrusted(key)


class _Warner:
    """Counts distrusted values, and logs a warning at most once a minute."""

    def __init__(self) -> None:
        self._warned_s = -WARN_EVERY_S

    def __call__(self, key: str) -> None:
        metrics.cache_distrusted.inc()
        now_s = time.monotonic()
        if now_s - self._warned_s >= WARN_EVERY_S:
            self._warned_s = now_s
            logger.warning(
                "Security: Redis holds under %s what no worker of this installation has written there. It is not"
                " believed. Either someone else writes to this Redis, or a worker has another leg key.",
                key,
            )
