"""Access tokens: which count, which do not and why, what a worker remembers, and how keys change."""

import base64
import hmac
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from mercuria.auth.token_keys import JwkSet, KeyFile, KeysError, new_key, parse_keys, thumbprint
from mercuria.auth.tokens import CLOCK_SKEW_S, Caller, TokenFault, Tokens
from mercuria.config import SettingError, Settings

SOMEBODY = Caller(UUID("5a7d1c52-0f6b-4c5e-9d39-2f1f6e0c8a11"), "user")
LIFETIME_S = 900


@pytest.fixture
def tokens(settings: Settings) -> Tokens:
    """Return the tokens of a worker."""
    return Tokens(settings)


class Forger(NamedTuple):
    """Makes tokens from the installation's own key, and changes what a test wants changed."""

    private: Ed25519PrivateKey
    kid: str

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Return the claims of a good token with `changes`; None takes a claim away."""
        now_s = int(time.time())
        good = {
            "iss": "mercuria",
            "aud": "mercuria",
            "sub": str(SOMEBODY.id),
            "role": "user",
            "iat": now_s,
            "exp": now_s + LIFETIME_S,
            "jti": str(uuid4()),
        }
        return {name: value for name, value in (good | changes).items() if value is not None}

    def token(self, header: dict[str, Any] | None = None, **changes: Any) -> str:
        """Return a token with other claims, or another header."""
        full = {"kid": self.kid, "typ": "at+jwt", **(header or {})}
        kept = {name: value for name, value in full.items() if value is not None}
        if "typ" in full and full["typ"] is None:
            kept["typ"] = ""
        return jwt.encode(self.claims(**changes), self.private, "EdDSA", headers=kept)

    def with_header(self, **header: Any) -> str:
        """Return a token whose header says something that no library would write, rightly signed all the same."""
        full = {"alg": "EdDSA", "kid": self.kid, "typ": "at+jwt", **header}
        signed = f"{encoded(full)}.{encoded(self.claims())}"
        return f"{signed}.{text_of(self.private.sign(signed.encode()))}"


def text_of(content: bytes) -> str:
    """Return base64url without its padding."""
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def encoded(value: object) -> str:
    """Return a part of a token."""
    return text_of(json.dumps(value).encode())


@pytest.fixture
def forger(keys_file: Path) -> Forger:
    """Return a forger who has the installation's key."""
    (key,) = parse_keys(keys_file.read_text()).keys
    content = base64.urlsafe_b64decode(key.d + "=")
    return Forger(Ed25519PrivateKey.from_private_bytes(content), key.kid)


# What counts.


def test_an_issued_token_tells_who_calls(tokens: Tokens) -> None:
    for caller in (SOMEBODY, Caller(uuid4(), "operator")):
        assert tokens.verify(tokens.issue(caller)) == caller


def test_an_issued_token_is_an_access_token_as_rfc_9068_has_it(tokens: Tokens, forger: Forger) -> None:
    token = tokens.issue(SOMEBODY)
    assert jwt.get_unverified_header(token) == {"alg": "EdDSA", "kid": forger.kid, "typ": "at+jwt"}
    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims.keys() == {"iss", "aud", "sub", "role", "iat", "exp", "jti"}
    assert claims["exp"] - claims["iat"] == LIFETIME_S
    assert claims["jti"] != jwt.decode(tokens.issue(SOMEBODY), options={"verify_signature": False})["jti"]


GOOD: dict[str, Callable[[Forger], str]] = {
    "as it is issued": lambda forger: forger.token(),
    "the other way of writing its type": lambda forger: forger.token({"typ": "application/AT+JWT"}),
    "issued by a clock that is a little ahead": lambda forger: forger.token(iat=int(time.time()) + 3),
    "expired for a clock that is a little ahead": lambda forger: forger.token(exp=int(time.time()) - 3),
    "with a claim that nobody here reads": lambda forger: forger.token(client_id="app"),
}


@pytest.mark.parametrize("made", GOOD.values(), ids=GOOD)
def test_what_counts(tokens: Tokens, forger: Forger, made: Callable[[Forger], str]) -> None:
    assert tokens.verify(made(forger)) == SOMEBODY


# What does not.


def hs256_with_the_public_key(forger: Forger) -> str:
    """Return a token for whoever takes the algorithm's name from the token, and the public key for a secret."""
    public = forger.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    header = {"alg": "HS256", "kid": forger.kid, "typ": "at+jwt"}
    signed = f"{encoded(header)}.{encoded(forger.claims())}"
    return f"{signed}.{text_of(hmac.digest(public, signed.encode(), 'sha256'))}"


def changed(forger: Forger, part: int) -> str:
    """Return a token with one bit changed in a part."""
    parts = forger.token().split(".")
    content = bytearray(base64.urlsafe_b64decode(parts[part] + "=="))
    content[len(content) // 2] ^= 1
    parts[part] = text_of(bytes(content))
    return ".".join(parts)


def none_algorithm(forger: Forger, name: str) -> str:
    """Return a token that says that it needs no signature."""
    header = {"alg": name, "kid": forger.kid, "typ": "at+jwt"}
    return f"{encoded(header)}.{encoded(forger.claims())}."


def by_another_key(forger: Forger) -> str:
    """Return a token that names the installation's key, and is signed with another one."""
    return Forger(Ed25519PrivateKey.generate(), forger.kid).token()


BAD: dict[str, Callable[[Forger], str]] = {
    "signed with another key": by_another_key,
    "its header changed": lambda forger: changed(forger, 0),
    "its claims changed": lambda forger: changed(forger, 1),
    "its signature changed": lambda forger: changed(forger, 2),
    "no signature": lambda forger: forger.token().rpartition(".")[0] + ".",
    "alg none": lambda forger: none_algorithm(forger, "none"),
    "alg None": lambda forger: none_algorithm(forger, "None"),
    "alg empty": lambda forger: none_algorithm(forger, ""),
    "HS256 with the public key": hs256_with_the_public_key,
    "another name of its algorithm": lambda forger: forger.with_header(alg="Ed25519"),
    "no alg": lambda forger: forger.with_header(alg=None),
    "alg as a list": lambda forger: forger.with_header(alg=["EdDSA"]),
    "no kid": lambda forger: forger.token({"kid": None}),
    "unknown kid": lambda forger: forger.token({"kid": "unknown"}),
    "kid as a number": lambda forger: forger.with_header(kid=1),
    "kid as a path": lambda forger: forger.token({"kid": "../../token-keys.json"}),
    "a key of its own in its header": lambda forger: forger.with_header(jwk={"kty": "OKP"}, kid="mine"),
    "an extension that it says is critical": lambda forger: forger.with_header(crit=["exp"], exp=1),
    "payload not encoded": lambda forger: forger.with_header(b64=False, crit=["b64"]),
    "typ JWT": lambda forger: forger.token({"typ": "JWT"}),
    "no typ": lambda forger: forger.token({"typ": None}),
    "typ of an ID token": lambda forger: forger.token({"typ": "id+jwt"}),
    "typ as a number": lambda forger: forger.with_header(typ=1),
    "wrong iss": lambda forger: forger.token(iss="somebody"),
    "no iss": lambda forger: forger.token(iss=None),
    "wrong aud": lambda forger: forger.token(aud="another"),
    "ours among other auds": lambda forger: forger.token(aud=["another", "mercuria"]),
    "no aud": lambda forger: forger.token(aud=None),
    "no sub": lambda forger: forger.token(sub=None),
    "sub no UUID": lambda forger: forger.token(sub="root"),
    "sub a number": lambda forger: forger.token(sub=1),
    "no role": lambda forger: forger.token(role=None),
    "unknown role": lambda forger: forger.token(role="admin"),
    "role a list": lambda forger: forger.token(role=["operator"]),
    "no exp": lambda forger: forger.token(exp=None),
    "exp a text": lambda forger: forger.token(exp="tomorrow"),
    "exp without end": lambda forger: forger.token(exp=float("inf")),
    "no iat": lambda forger: forger.token(iat=None),
    "iat to come": lambda forger: forger.token(iat=int(time.time()) + 60),
    "nbf to come": lambda forger: forger.token(nbf=int(time.time()) + 60),
    "no jti": lambda forger: forger.token(jti=None),
    "one part": lambda _: "garbage",
    "two parts": lambda _: "a.b",
    "three empty parts": lambda _: "..",
    "four parts": lambda forger: forger.token() + ".x",
    "parts that are no base64": lambda _: "!.!.!",
    "parts that are no JSON": lambda _: f"{text_of(b'{')}.{text_of(b'{')}.{text_of(b'x')}",
    "a header that is a list": lambda _: f"{encoded([])}.{encoded({})}.{text_of(b'x')}",
    "a header without a bottom": lambda _: f"{text_of(b'[' * 2900)}.{encoded({})}.{text_of(b'x')}",
    "claims that are a list": lambda forger: jws(forger, []),
    "no UTF-8": lambda _: f"{text_of(bytes([255, 254]))}.{encoded({})}.{text_of(b'x')}",
    "not ASCII": lambda forger: forger.token() + "é",
    "lone surrogate": lambda forger: forger.token() + "\udcff",
    "space inside": lambda forger: forger.token().replace(".", " ."),
    "huge": lambda forger: forger.token(note="x" * 4096),
    "a megabyte": lambda _: "x" * 2**20,
}


def jws(forger: Forger, claims: object) -> str:
    """Return a signed token with any claims at all."""
    signed = f"{encoded({'alg': 'EdDSA', 'kid': forger.kid, 'typ': 'at+jwt'})}.{encoded(claims)}"
    return f"{signed}.{text_of(forger.private.sign(signed.encode()))}"


@pytest.mark.parametrize("made", BAD.values(), ids=BAD)
def test_what_does_not_count(tokens: Tokens, forger: Forger, made: Callable[[Forger], str]) -> None:
    token = made(forger)
    # The second answer must not come from a memory of the first.
    assert [tokens.verify(token), tokens.verify(token)] == [TokenFault.INVALID_TOKEN] * 2


def test_an_expired_token_is_told_apart_from_a_forged_one(tokens: Tokens, forger: Forger) -> None:
    past: dict[str, Any] = {"iat": int(time.time()) - 1000, "exp": int(time.time()) - CLOCK_SKEW_S - 1}
    assert tokens.verify(forger.token(**past)) is TokenFault.TOKEN_EXPIRED
    forged = Forger(Ed25519PrivateKey.generate(), forger.kid).token(**past)
    assert tokens.verify(forged) is TokenFault.INVALID_TOKEN


HEADERS: dict[str, tuple[str | None, Callable[[str], str] | None]] = {
    "nothing": (None, None),
    "empty": ("missing_token", lambda _: ""),
    "another scheme": ("missing_token", lambda token: f"Basic {token}"),
    "no token": ("missing_token", lambda _: "Bearer"),
    "a space for a token": ("missing_token", lambda _: "Bearer "),
    "only the token": ("missing_token", lambda token: token),
    "two tokens": ("invalid_token", lambda token: f"Bearer {token}, Bearer {token}"),
    "as it should be": (None, lambda token: f"Bearer {token}"),
    "in small letters": (None, lambda token: f"bearer {token}"),
    "with more spaces": (None, lambda token: f"Bearer   {token} "),
}


@pytest.mark.parametrize("case", HEADERS.values(), ids=HEADERS)
def test_the_authorization_header(
    tokens: Tokens, case: tuple[str | None, Callable[[str], str] | None]
) -> None:
    fault, header = case
    if header is None:
        assert tokens.verify_header(None) is TokenFault.MISSING_TOKEN
        return
    assert tokens.verify_header(header(tokens.issue(SOMEBODY))) == (TokenFault(fault) if fault else SOMEBODY)


def test_a_challenge_names_an_error_only_where_something_was_tried() -> None:
    assert TokenFault.MISSING_TOKEN.challenge == 'Bearer realm="mercuria"'
    for fault in (TokenFault.INVALID_TOKEN, TokenFault.TOKEN_EXPIRED):
        assert fault.challenge.startswith('Bearer realm="mercuria", error="invalid_token", error_descr')


# What is remembered.


def remembered(tokens: Tokens) -> list[str]:
    """Return the tokens that a worker remembers."""
    return list(tokens._remembered)


def test_a_token_is_remembered_when_it_counts(tokens: Tokens, forger: Forger) -> None:
    good = forger.token()
    tokens.verify(good)
    tokens.verify(changed(forger, 1))
    assert remembered(tokens) == [good]
    assert tokens.verify(good) is tokens.verify(good), (
        "the same caller, without another look at the signature"
    )


def test_a_remembered_token_expires(tokens: Tokens, forger: Forger) -> None:
    # It counts for as long as clocks may differ after its end, which is soon.
    token = forger.token(exp=int(time.time()) - CLOCK_SKEW_S + 2)
    assert tokens.verify(token) == SOMEBODY
    deadline = time.monotonic() + 10
    while (answer := tokens.verify(token)) == SOMEBODY:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert answer is TokenFault.TOKEN_EXPIRED
    assert remembered(tokens) == []


def test_the_memory_is_bounded_and_forgets_what_was_not_used(settings: Settings, forger: Forger) -> None:
    tokens = Tokens(settings, memory=3)
    first, second, third, fourth = (forger.token() for _ in range(4))
    for token in (first, second, third, first, fourth):
        tokens.verify(token)
    assert remembered(tokens) == [third, first, fourth]


# Keys.


def write(path: Path, keys: JwkSet) -> None:
    """Replace the file, as `mercuria keys` does."""
    new = path.with_suffix(".new")
    new.write_text(keys.as_text())
    new.replace(path)


def later(tokens: Tokens) -> None:
    """Let the second pass after which a worker looks at the file again."""
    tokens._keys._looked_s -= 1


def test_a_rotation_is_noticed_and_old_tokens_count_on(settings: Settings, keys_file: Path) -> None:
    one, other = Tokens(settings), Tokens(settings)
    old = one.issue(SOMEBODY)
    assert other.verify(old) == SOMEBODY
    rotated = parse_keys(keys_file.read_text()).rotated(int(time.time()), LIFETIME_S)
    write(keys_file, rotated)
    later(one)
    new = one.issue(SOMEBODY)
    assert jwt.get_unverified_header(new)["kid"] == rotated.keys[-1].kid
    # The other worker has not looked again yet, and does so at once when it meets the new key.
    assert other.verify(new) == SOMEBODY
    assert [each.verify(old) for each in (one, other, Tokens(settings))] == [SOMEBODY] * 3
    assert [key["kid"] for key in one.jwks()["keys"]] == [key.kid for key in rotated.keys]


def test_what_a_key_has_signed_is_forgotten_with_it(settings: Settings, keys_file: Path) -> None:
    tokens = Tokens(settings)
    token = tokens.issue(SOMEBODY)
    assert tokens.verify(token) == SOMEBODY
    write(keys_file, JwkSet((new_key(int(time.time())),)))
    later(tokens)
    assert tokens.verify(token) is TokenFault.INVALID_TOKEN
    assert tokens.verify(tokens.issue(SOMEBODY)) == SOMEBODY


def test_a_retired_key_is_gone_when_its_last_token_has_expired() -> None:
    first = JwkSet((new_key(1000),))
    second = first.rotated(2000, LIFETIME_S)
    assert [key.exp for key in second.keys[:-1]] == [2000 + LIFETIME_S + 60]
    third = second.rotated(2500, LIFETIME_S)
    assert [key.kid for key in third.keys[:2]] == [key.kid for key in second.keys]
    assert third.keys[0].exp == second.keys[0].exp, "it is not retired anew"
    fourth = third.rotated(2000 + LIFETIME_S + 60, LIFETIME_S)
    assert [key.kid for key in fourth.keys[:2]] == [key.kid for key in third.keys[1:]]


def test_a_key_counts_no_more_after_its_end_although_it_is_in_the_file(
    settings: Settings, keys_file: Path, forger: Forger
) -> None:
    old = JwkSet(parse_keys(keys_file.read_text()).keys)
    long_ago = int(time.time()) - LIFETIME_S - 61
    write(keys_file, old.rotated(long_ago, LIFETIME_S))
    tokens = Tokens(settings)
    assert tokens.verify(forger.token()) is TokenFault.INVALID_TOKEN
    assert [key["kid"] for key in tokens.jwks()["keys"]] != [forger.kid]
    assert len(tokens.jwks()["keys"]) == 1


def test_unknown_keys_do_not_make_a_worker_read_the_file_again_and_again(keys_file: Path) -> None:
    read: list[frozenset[str]] = []
    keys = KeyFile(keys_file, read.append)
    assert [keys.public_key(f"unknown-{number}") for number in range(50)] == [None] * 50
    assert len(read) == 1
    write(keys_file, parse_keys(keys_file.read_text()).rotated(int(time.time()), LIFETIME_S))
    assert keys.public_key("unknown") is None
    assert [len(kids) for kids in read] == [1, 2]


def test_the_public_keys_verify_and_hold_no_secret(tokens: Tokens) -> None:
    published = tokens.jwks()
    (key,) = published["keys"]
    assert key.keys() == {"kty", "crv", "x", "kid", "alg", "use"}
    token = tokens.issue(SOMEBODY)
    found = jwt.PyJWKSet.from_dict(published)[jwt.get_unverified_header(token)["kid"]]
    assert jwt.decode(token, found, ["EdDSA"], audience="mercuria", issuer="mercuria")["sub"] == str(
        SOMEBODY.id
    )


def test_a_key_is_named_by_its_thumbprint() -> None:
    # The example of RFC 8037, appendix A.3.
    assert thumbprint("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo") == (
        "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
    )


GOOD_KEY = json.loads(JwkSet((new_key(0),)).as_text())["keys"][0]
OTHER_KEY = json.loads(JwkSet((new_key(0),)).as_text())["keys"][0]

UNREADABLE: dict[str, tuple[str, str]] = {
    "nothing": ("", "it is not a JWK set"),
    "no JSON": ("{", "it is not a JWK set"),
    "no keys": ('{"keys": []}', "it has no key that signs"),
    "only a retired key": (json.dumps({"keys": [GOOD_KEY | {"exp": 1}]}), "it has no key that signs"),
    "a public key": (
        json.dumps({"keys": [{name: value for name, value in GOOD_KEY.items() if name != "d"}]}),
        "missing required field `d`",
    ),
    "halves of two keys": (
        json.dumps({"keys": [GOOD_KEY | {"x": OTHER_KEY["x"]}]}),
        "Public key does not match private key",
    ),
    "another kind": (json.dumps({"keys": [GOOD_KEY | {"kty": "RSA"}]}), "is not for Ed25519"),
    "another curve": (json.dumps({"keys": [GOOD_KEY | {"crv": "Ed448"}]}), "is not for Ed25519"),
    "too short": (json.dumps({"keys": [GOOD_KEY | {"d": "AAAA"}]}), "cannot be read"),
}


@pytest.mark.parametrize(("content", "reason"), UNREADABLE.values(), ids=UNREADABLE)
def test_a_file_that_holds_no_keys_is_refused_at_the_start_and_passed_over_later(
    settings: Settings, keys_file: Path, content: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    tokens = Tokens(settings)
    token = tokens.issue(SOMEBODY)
    keys_file.write_text(content)
    with pytest.raises(KeysError, match=reason):
        parse_keys(content)
    with pytest.raises(SettingError, match="MERCURIA_TOKEN_KEYS_FILE"):
        Tokens(settings).check()
    for _ in range(3):
        later(tokens)
        assert tokens.verify(token) == SOMEBODY
    assert len([record for record in caplog.records if reason in record.getMessage()]) == 1
    assert GOOD_KEY["d"] not in caplog.text


def test_a_worker_that_had_no_keys_takes_them_when_they_come(settings: Settings, keys_file: Path) -> None:
    content = keys_file.read_text()
    keys_file.unlink()
    tokens = Tokens(settings)
    for _ in range(2):
        with pytest.raises(SettingError, match="MERCURIA_TOKEN_KEYS_FILE"):
            tokens.issue(SOMEBODY)
    keys_file.write_text(content)
    assert tokens.verify(tokens.issue(SOMEBODY)) == SOMEBODY
    keys_file.unlink()
    later(tokens)
    assert tokens.verify(tokens.issue(SOMEBODY)) == SOMEBODY, "the keys of before stay in use"


def test_settings_say_what_a_token_names(settings: Settings, tmp_path: Path) -> None:
    other = Settings.from_env(
        {
            "MERCURIA_DATA_DIR": str(tmp_path),
            "MERCURIA_TOKEN_KEYS_FILE": str(settings.token_keys_file),
            "MERCURIA_TOKEN_ISSUER": "https://bank.example",
            "MERCURIA_TOKEN_AUDIENCE": "wallets",
            "MERCURIA_ACCESS_TOKEN_MINUTES": "1",
        }
    )
    token = Tokens(other).issue(SOMEBODY)
    claims = jwt.decode(token, options={"verify_signature": False})
    assert (claims["iss"], claims["aud"]) == ("https://bank.example", "wallets")
    assert claims["exp"] - claims["iat"] == 60
    assert Tokens(other).verify(token) == SOMEBODY
    assert Tokens(settings).verify(token) is TokenFault.INVALID_TOKEN
