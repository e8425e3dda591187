"""Authenticity: what a worker reads in Redis counts only where a worker of the same installation has written it there.

Redis has one password, or none, and each client that has it can write. So each value carries a keyed hash (MAC) over
the key that it stands under and over its content. A value that was changed, was copied from another key, or
comes from another installation counts as one that is missing.

The MAC does not stop someone who writes to Redis from bringing back, or taking away, what a worker once wrote under the
same key: a value says when it was written, and is not believed for longer than it would have lived. Until then, an
older balance of the same wallet can be shown again. No money depends on it: wallets are decided from the log alone.
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
    """Makes and checks MACs.

    Args:
        leg_key: returns the installation's leg key, of which the key is made; called when it is first needed.
        on_distrusted: called with each key of Redis that holds what no worker of this installation wrote there.
    """

    def __init__(
        self, leg_key: Callable[[], bytes], on_distrusted: Callable[[str], None] | None = None
    ) -> None:
        self._leg_key = leg_key
        self._on_distrusted = on_distrusted or _Warner()

    @cached_property
    def _keyed(self) -> Any:
        # One key is never used for two purposes: legs have theirs, and this one is made of it.
        key = blake2b(key=self._leg_key(), person=b"mercuria-redis").digest()
        # Copying a keyed state is cheaper than keying anew.
        return blake2b(key=key, digest_size=MAC_BYTES)

    def mac(self, key: bytes, content: bytes) -> bytes:
        """Return the MAC of what stands under a key: 16 bytes. `key` says also what kind of value it is."""
        state = self._keyed.copy()
        # The length keeps apart what is key and what is content.
        state.update(b"%d:%b%b" % (len(key), key, content))
        digest: bytes = state.digest()
        return digest

    def holds(self, key: bytes, content: bytes, mac: bytes) -> bool:
        """Return whether a MAC is that of `content` under `key`."""
        return compare_digest(self.mac(key, content), mac)

    def distrust(self, key: str) -> None:
        """Note that what stands under a key of Redis was not written by this installation."""
        self._on_distrusted(key)


class _Warner:
    """Counts what is not believed, and says so in the log, once a minute at the most."""

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
