"""The keys that sign access tokens: a file of private JWKs (RFC 7517, RFC 8037 for Ed25519), and its watcher.

The last key signs. The keys before it are retired: their tokens stay valid until the `exp` of the key, after
which all tokens that it signed have expired. Workers notice a change within a second, and at once if a token
names a key that they do not know.
"""

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256, Hash
from jwt.algorithms import OKPAlgorithm
from jwt.utils import base64url_encode
from msgspec import UNSET, Struct, UnsetType

from mercuria.config import SettingError

LOOK_EVERY_S = 1.0
RETIREMENT_MARGIN_S = 60
"""How much longer than its tokens a retired key stays valid: workers notice late, and clocks differ."""

logger = logging.getLogger(__name__)


class KeysError(Exception):
    """A key file cannot be used. The message gives the reason."""


class Jwk(Struct, frozen=True):
    """A private key as stored in the file. Times are seconds since 1970; a key with `exp` is retired."""

    kid: str
    x: str
    d: str
    iat: int
    exp: int | UnsetType = UNSET
    kty: str = "OKP"
    crv: str = "Ed25519"
    alg: str = "EdDSA"
    use: str = "sig"

    def public(self) -> dict[str, str]:
        """Return the public part of the key."""
        return {name: getattr(self, name) for name in ("kty", "crv", "x", "kid", "alg", "use")}

    def is_good(self, now_s: float) -> bool:
        """Return whether a token that the key signed may still be valid."""
        return self.exp is UNSET or now_s < self.exp


class JwkSet(Struct, frozen=True):
    """The content of the file: its keys, of which the last one signs."""

    keys: tuple[Jwk, ...]

    def rotated(self, now_s: int, token_lifetime_s: int) -> "JwkSet":
        """Return the set with a new key; the old keys are retired, and expired ones are removed."""
        exp = now_s + token_lifetime_s + RETIREMENT_MARGIN_S
        retired = (msgspec.structs.replace(key, exp=exp) if key.exp is UNSET else key for key in self.keys)
        return JwkSet((*(key for key in retired if key.is_good(now_s)), new_key(now_s)))

    def as_text(self) -> str:
        """Return the file's content."""
        return msgspec.json.format(msgspec.json.encode(self)).decode() + "\n"


def new_key(now_s: int) -> Jwk:
    """Generate a key."""
    pair: dict[str, Any] = OKPAlgorithm.to_jwk(Ed25519PrivateKey.generate(), as_dict=True)
    return Jwk(kid=thumbprint(pair["x"]), x=pair["x"], d=pair["d"], iat=now_s)


def parse_keys(text: str | bytes) -> JwkSet:
    """Parse a file's content.

    Raises:
        KeysError: the content does not hold keys.
    """
    try:
        keys = msgspec.json.decode(text, type=JwkSet)
    except msgspec.DecodeError as error:
        raise KeysError(f"it is not a JWK set: {error}") from None
    if not keys.keys or keys.keys[-1].exp is not UNSET:
        raise KeysError("it has no key that signs: the last one must have no exp")
    for key in keys.keys:
        _private(key)
    return keys


class Signer(Struct, frozen=True):
    """The key that signs."""

    kid: str
    private: Ed25519PrivateKey


class KeyFile:
    """The file as a worker follows it. While it cannot be read, the previous keys stay in use.

    Args:
        path: the path of the file.
        on_change: called with the ids of the keys after they have changed.
    """

    def __init__(self, path: Path, on_change: Callable[[frozenset[str]], None] = lambda _: None) -> None:
        self._path = path
        self._on_change = on_change
        self._keys: JwkSet | None = None
        self._public: dict[str, Ed25519PublicKey] = {}
        self._signer: Signer | None = None
        self._stamp: object = None
        self._looked_s = -LOOK_EVERY_S

    def look(self, *, at_once: bool = False) -> None:
        """Read the file again if it has changed. The check happens at most once a second.

        Raises:
            SettingError: the file has never held keys.
        """
        now_s = time.monotonic()
        if now_s - self._looked_s < LOOK_EVERY_S and not at_once:
            return
        self._looked_s = now_s
        try:
            stamp = _stamp(self._path)
            if stamp != self._stamp:
                # The change is noted first, so that an invalid file is reported only once.
                self._stamp = stamp
                self._take(parse_keys(self._path.read_bytes()))
        except (OSError, KeysError) as error:
            if self._keys is None:
                self._stamp, self._looked_s = None, -LOOK_EVERY_S
                reason = error.strerror if isinstance(error, OSError) else error
                may_be = f"a file with private Ed25519 keys, which `mercuria up` makes ({reason})"
                raise SettingError("MERCURIA_TOKEN_KEYS_FILE", str(self._path), may_be) from None
            logger.error("%s cannot be read, and the keys of before stay in use: %s.", self._path, error)

    def signer(self) -> Signer:
        """Return the key that currently signs."""
        self.look()
        assert self._signer is not None, "there are keys, or looking raises"
        return self._signer

    def public_key(self, kid: str) -> Ed25519PublicKey | None:
        """Return the key that verifies tokens of `kid`, or None if that key is unknown or expired."""
        key = self._public.get(kid)
        if key is None:
            self.look(at_once=True)
            key = self._public.get(kid)
        return key if key is not None and self._is_good(kid) else None

    def jwks(self) -> dict[str, list[dict[str, str]]]:
        """Return the public keys as a JWK set."""
        self.look()
        assert self._keys is not None, "there are keys, or looking raises"
        return {"keys": [key.public() for key in self._keys.keys if key.is_good(time.time())]}

    def _is_good(self, kid: str) -> bool:
        assert self._keys is not None, "a public key is one of them"
        return any(key.kid == kid and key.is_good(time.time()) for key in self._keys.keys)

    def _take(self, keys: JwkSet) -> None:
        private = {key.kid: _private(key) for key in keys.keys}
        self._keys = keys
        self._public = {kid: key.public_key() for kid, key in private.items()}
        self._signer = Signer(keys.keys[-1].kid, private[keys.keys[-1].kid])
        self._on_change(frozenset(private))


def _private(key: Jwk) -> Ed25519PrivateKey:
    """Return the private key of a JWK, and check that its public half belongs to it.

    Raises:
        KeysError: the JWK is not a valid key.
    """
    if (key.kty, key.crv, key.alg) != ("OKP", "Ed25519", "EdDSA"):
        raise KeysError(f"the key {key.kid} is not for Ed25519")
    try:
        private = OKPAlgorithm.from_jwk({"kty": key.kty, "crv": key.crv, "x": key.x, "d": key.d})
    except (jwt.InvalidKeyError, ValueError) as error:
        raise KeysError(f"the key {key.kid} cannot be read: {error}") from None
    assert isinstance(private, Ed25519PrivateKey), "it has a `d`"
    return private


def thumbprint(x: str) -> str:
    """Return a key's id: its thumbprint (RFC 7638), over the members that RFC 8037 names."""
    digest = Hash(SHA256())
    digest.update(f'{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}'.encode())
    return base64url_encode(digest.finalize()).decode()


def _stamp(path: Path) -> object:
    """Return a value that changes when the file is replaced or written."""
    stat = os.stat(path)
    return stat.st_mtime_ns, stat.st_ino, stat.st_size
