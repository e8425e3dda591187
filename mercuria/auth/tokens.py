"""Access tokens, which identify callers: JWTs with the profile of RFC 9068, signed with Ed25519 (RFC 8037).

Each worker verifies a token's signature once and remembers its caller until the token expires, since
verification costs more than everything else that a request needs.
"""

import time
from collections import OrderedDict
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Literal, NamedTuple, cast
from uuid import UUID, uuid4

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from msgspec import Struct

from mercuria.auth.token_keys import KeyFile
from mercuria.config import Settings

ALGORITHM = "EdDSA"
TYPE = "at+jwt"
CLAIMS = ("iss", "aud", "sub", "iat", "exp", "jti", "role")
MAX_TOKEN_CHARACTERS = 4096
REMEMBERED = 20_000
"""The number of tokens that a worker remembers. Each takes about a kilobyte."""
CLOCK_SKEW_S = 5
"""The maximum difference between the clocks of workers."""

Role = Literal["user", "operator"]
ROLES: tuple[Role, ...] = ("user", "operator")


class Caller(Struct, frozen=True, gc=False):
    """The caller of a request: a user's id and role."""

    id: UUID
    role: Role


class TokenFault(StrEnum):
    """The reason why a request has no caller."""

    MISSING_TOKEN = "missing_token"  # noqa: S105  an error code
    INVALID_TOKEN = "invalid_token"  # noqa: S105
    TOKEN_EXPIRED = "token_expired"  # noqa: S105

    @property
    def challenge(self) -> str:
        """The response's `WWW-Authenticate` (RFC 6750), without an error if the request had no token."""
        return _CHALLENGES[self]


_CHALLENGES: dict[TokenFault, str] = {
    TokenFault.MISSING_TOKEN: 'Bearer realm="mercuria"',
    TokenFault.INVALID_TOKEN: (
        'Bearer realm="mercuria", error="invalid_token", error_description="The access token is not valid"'
    ),
    TokenFault.TOKEN_EXPIRED: (
        'Bearer realm="mercuria", error="invalid_token", error_description="The access token has expired"'
    ),
}


class _Remembered(NamedTuple):
    caller: Caller
    until_s: float
    kid: str


class Tokens:
    """Issues access tokens and verifies them.

    Args:
        settings: the key file, the lifetime of a token, and the values of `iss` and `aud`.
        memory: the number of tokens to remember.
    """

    def __init__(self, settings: Settings, *, memory: int = REMEMBERED) -> None:
        self._memory = memory
        self.lifetime_s = settings.access_token_minutes * 60
        self._issuer = settings.token_issuer
        self._audience = settings.token_audience
        self._keys = KeyFile(settings.token_keys_file, self._forget_others)
        self._remembered: OrderedDict[str, _Remembered] = OrderedDict()

    def check(self) -> None:
        """Read the keys, so that a worker without keys does not start.

        Raises:
            SettingError: there are no keys.
        """
        self._keys.look()

    def issue(self, caller: Caller) -> str:
        """Return a new token for a caller."""
        now_s = int(time.time())
        signer = self._keys.signer()
        claims = {
            "iss": self._issuer,
            "aud": self._audience,
            "sub": str(caller.id),
            "role": caller.role,
            "iat": now_s,
            "exp": now_s + self.lifetime_s,
            "jti": str(uuid4()),
        }
        return jwt.encode(claims, signer.private, ALGORITHM, headers={"kid": signer.kid, "typ": TYPE})

    def verify(self, token: str) -> Caller | TokenFault:
        """Return the caller that a token identifies, or why the token is not valid."""
        self._keys.look()
        remembered = self._remembered.get(token)
        if remembered is not None and time.time() < remembered.until_s:
            self._remembered.move_to_end(token)
            return remembered.caller
        return self._verify_anew(token)

    def verify_header(self, authorization: str | None) -> Caller | TokenFault:
        """Return the caller that an `Authorization` header identifies, or why it has no valid token."""
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            return TokenFault.MISSING_TOKEN
        return self.verify(token.strip())

    def jwks(self) -> dict[str, list[dict[str, str]]]:
        """Return the public keys as a JWK set (RFC 7517). Other services can verify tokens with them."""
        return self._keys.jwks()

    def _verify_anew(self, token: str) -> Caller | TokenFault:
        self._remembered.pop(token, None)
        if len(token) > MAX_TOKEN_CHARACTERS or not token.isascii():
            return TokenFault.INVALID_TOKEN
        try:
            kid, key = self._key_of(jwt.get_unverified_header(token))
            claims = jwt.decode(
                token,
                key,
                [ALGORITHM],
                options={"require": list(CLAIMS), "strict_aud": True},
                audience=self._audience,
                issuer=self._issuer,
                leeway=CLOCK_SKEW_S,
            )
            caller = _caller(claims)
        except jwt.ExpiredSignatureError:
            return TokenFault.TOKEN_EXPIRED
        except jwt.InvalidTokenError:
            return TokenFault.INVALID_TOKEN
        self._remember(token, _Remembered(caller, int(claims["exp"]) + CLOCK_SKEW_S, kid))
        return caller

    def _key_of(self, header: Mapping[str, Any]) -> tuple[str, Ed25519PublicKey]:
        """Return the key that the header of an access token names. Raises an error for any other header."""
        kid, kind = header.get("kid"), header.get("typ")
        if not isinstance(kid, str) or not isinstance(kind, str):
            raise jwt.InvalidTokenError("it names no key or no type")
        # RFC 9068, section 4: both spellings of the type must be accepted.
        if kind.lower().removeprefix("application/") != TYPE or header.get("alg") != ALGORITHM:
            raise jwt.InvalidTokenError("it is no access token")
        key = self._keys.public_key(kid)
        if key is None:
            raise jwt.InvalidTokenError("its key does not count")
        return kid, key

    def _remember(self, token: str, remembered: _Remembered) -> None:
        self._remembered[token] = remembered
        if len(self._remembered) > self._memory:
            self._remembered.popitem(last=False)

    def _forget_others(self, kids: frozenset[str]) -> None:
        """Forget the tokens of keys that are not in `kids`."""
        kept = ((token, each) for token, each in self._remembered.items() if each.kid in kids)
        self._remembered = OrderedDict(kept)


def _caller(claims: Mapping[str, Any]) -> Caller:
    if claims["role"] not in ROLES:
        raise jwt.InvalidTokenError("it names no role")
    try:
        return Caller(UUID(claims["sub"]), cast(Role, claims["role"]))
    except ValueError:
        raise jwt.InvalidTokenError("it names no person") from None
