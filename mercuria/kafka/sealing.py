"""The seal of a leg: a keyed hash over its very bytes, so that no other producer can forge a credit.

The seal is the last member of the leg's JSON object: `…,"mac":"<32 hexadecimal digits>"}`. It covers all that stands
before it: type, origin, and body. A copied leg is no danger, since its origin was applied before.

The same key, with another purpose, signs where the reply to a record goes (`redis.replies`).
"""

from hashlib import blake2b
from hmac import compare_digest

MAC_BYTES = 16
_TAIL_BYTES = len(',"mac":""}') + 2 * MAC_BYTES


class Seal:
    """Seals and checks legs with an installation's key."""

    def __init__(self, key: bytes) -> None:
        # Copying a keyed state is cheaper than keying anew.
        self._keyed = blake2b(key=key, digest_size=MAC_BYTES)
        self._for_replies = blake2b(key=key, digest_size=MAC_BYTES, person=b"mercuria-reply")

    def close(self, leg_json: bytes) -> bytes:
        """Return the JSON object `leg_json` with its seal."""
        body = leg_json[:-1]
        return b'%b,"mac":"%b"}' % (body, self._mac(body))

    def holds(self, leg_json: bytes) -> bool:
        """Return whether a leg carries the seal that belongs to it."""
        body = leg_json[:-_TAIL_BYTES]
        return compare_digest(leg_json[-_TAIL_BYTES:], b',"mac":"%b"}' % self._mac(body))

    def sign_reply(self, address: bytes, value: bytes) -> bytes:
        """Return the signature of the address to which the reply to the record `value` goes, in hexadecimal digits.

        An address ends in a digit, so the colon shows where the value begins.
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
