"""The seal of a leg: a keyed hash over its exact bytes, so that no other producer can forge a credit.

The seal is the last member of the leg's JSON object: `…,"mac":"<32 hexadecimal digits>"}`. It covers
everything before it: type, origin, and body. A copied leg has no effect, since its origin was applied before.

The same key, with another purpose, signs the reply address of a record (`redis.replies`).
"""

from hashlib import blake2b
from hmac import compare_digest

MAC_BYTES = 16
_TAIL_BYTES = len(',"mac":""}') + 2 * MAC_BYTES


class Seal:
    """Seals and checks legs with an installation's key."""

    def __init__(self, key: bytes) -> None:
        # Copying a keyed hash state is cheaper than creating a new one.
        self._keyed = blake2b(key=key, digest_size=MAC_BYTES)
        self._for_replies = blake2b(key=key, digest_size=MAC_BYTES, person=b"mercuria-reply")

    def close(self, leg_json: bytes) -> bytes:
        """Return the JSON object `leg_json` with its seal."""
        body = leg_json[:-1]
        return b'%b,"mac":"%b"}' % (body, self._mac(body))

    def holds(self, leg_json: bytes) -> bool:
        """Return whether a leg carries its valid seal."""
        body = leg_json[:-_TAIL_BYTES]
        return compare_digest(leg_json[-_TAIL_BYTES:], b',"mac":"%b"}' % self._mac(body))

    def sign_reply(self, address: bytes, value: bytes) -> bytes:
        """Return the signature of a reply address for the record `value`, in hexadecimal digits.

        An address ends in a digit, so the colon marks the start of the value.
        """
        state = self._for_replies.copy()
        state.update(address)
        state.update(b":")
        state.update(value)
        return state.hexdigest().encode()

    def _mac(self, body: bytes) -> bytes:
        state = self._keyed.copy()
        state.update(body)
        return state.hexdigest().encode()
