"""Requests that somebody has made up to do harm, or got wrong: each gets the answer that is documented for it.

What goes wrong below requests (slow clients, many connections, no HTTP at all) is in `test_server.py`.
"""

import secrets
from base64 import urlsafe_b64decode
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mercuria.auth.passwords import is_text
from mercuria.auth.token_keys import parse_keys
from mercuria.embedded.stack import Stack
from tests.auth.test_tokens import BAD, Forger
from tests.web.api_client import ApiClient, ApiClients, Scene, refusal, until
from tests.web.wire import ask

SOME_ID = "5a7d1c52-0f6b-4c5e-9d39-2f1f6e0c8a11"
JSON = "Content-Type: application/json"

OF_USERS = {
    "me": ("GET", "/me"),
    "open": ("POST", "/wallets"),
    "list": ("GET", "/wallets"),
    "show": ("GET", f"/wallets/{SOME_ID}"),
    "deposit": ("POST", f"/wallets/{SOME_ID}/deposit"),
    "withdraw": ("POST", f"/wallets/{SOME_ID}/withdraw"),
    "close": ("POST", f"/wallets/{SOME_ID}/close"),
    "events": ("GET", f"/wallets/{SOME_ID}/events"),
    "transfer": ("POST", "/transactions"),
    "transaction": ("GET", f"/transactions/{SOME_ID}"),
    "transactions": ("GET", "/transactions"),
}
OF_OPERATORS = {
    "freeze": ("POST", f"/wallets/{SOME_ID}/freeze"),
    "unfreeze": ("POST", f"/wallets/{SOME_ID}/unfreeze"),
}
CALLS = OF_USERS | OF_OPERATORS


# Who calls.


@pytest.fixture
def forger(live_stack: Stack) -> Forger:
    """Return a forger who has the stack's own key."""
    text = (Path(live_stack.directory.path) / "token-keys.json").read_text()
    key = parse_keys(text).keys[-1]
    return Forger(Ed25519PrivateKey.from_private_bytes(urlsafe_b64decode(key.d + "=")), key.kid)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("worker", [0, 1])
async def test_nobody_calls_without_a_token_that_counts(
    clients: ApiClients, forger: Forger, name: str, worker: int
) -> None:
    method, path = CALLS[name]
    port = clients.ports[worker]
    for fields, code in (
        ([], "missing_token"),
        (["Authorization: Basic em9lOnBhc3N3b3Jk"], "missing_token"),
        (["Authorization: Bearer"], "missing_token"),
        ([f"Authorization: Bearer {forger.token(exp=1)}"], "token_expired"),
        ([f"Authorization: Bearer {BAD['signed with another key'](forger)}"], "invalid_token"),
        ([f"Authorization: Bearer {BAD['alg none'](forger)}"], "invalid_token"),
        ([f"Authorization: Bearer {BAD['wrong aud'](forger)}"], "invalid_token"),
    ):
        # Who calls comes first: nothing of the request is read before.
        reply = await ask(port, method, f"/api/v1{path}", *fields, JSON, body=b"{")
        assert refusal(reply) == (401, code)
        challenge = reply.headers["WWW-Authenticate"]
        assert challenge.startswith("Bearer ") and ("error=" in challenge) == (code != "missing_token")


@pytest.mark.parametrize("name", BAD)
async def test_a_forged_token_is_nobodys(clients: ApiClients, forger: Forger, name: str) -> None:
    token = BAD[name](forger).encode(errors="surrogateescape").decode(errors="replace")
    expected = (401, "invalid_token") if len(token) < 8000 else (431, "headers_too_large")
    for port in clients.ports:
        reply = await ask(port, "GET", "/api/v1/wallets", f"Authorization: Bearer {token}")
        assert refusal(reply) == expected


@pytest.mark.parametrize("name", OF_OPERATORS)
@pytest.mark.parametrize("worker", [0, 1])
async def test_operators_calls_are_theirs_alone(scene: Scene, name: str, worker: int) -> None:
    _, path = OF_OPERATORS[name]
    mine = path.replace(SOME_ID, scene.wallets["open"])
    for who in ("owner", "stranger"):
        reply = await scene.clients[who].post(mine, worker=worker)
        assert refusal(reply) == (403, "operator_required")
    assert (await scene.owner.get(f"/wallets/{scene.wallets['open']}")).document["status"] == "open"


# Bodies.


def body(**fields: Any) -> bytes:
    """Return a body that would be good without `fields`."""
    return msgspec.json.encode({"amount": 1} | fields)


def amount(text: str) -> bytes:
    """Return a body with an amount, as it is written."""
    return b'{"amount": %b}' % text.encode()


MALFORMED = (400, "malformed_json")
NO_OBJECT = (400, "malformed_body")
INVALID = (400, "invalid_field")
UNKNOWN = (400, "unknown_field")
MISSING = (400, "missing_field")
NOT_POSITIVE = (422, "amount_must_be_positive")
TOO_LARGE = (422, "amount_too_large")

BODIES: dict[str, tuple[bytes, tuple[int, str]]] = {
    # What is no JSON.
    "cut off": (b'{"amount": 1', MALFORMED),
    "a comma too many": (b'{"amount": 1,}', MALFORMED),
    "other quotes": (b"{'amount': 1}", MALFORMED),
    "two values": (b'{"amount": 1} {"amount": 1}', MALFORMED),
    "a NUL at the end": (b'{"amount": 1}\x00', MALFORMED),
    "a comment": (b'{"amount": 1 /* one */}', MALFORMED),
    "a byte order mark": (b'\xef\xbb\xbf{"amount": 1}', MALFORMED),
    "UTF-16": ('{"amount": 1}'.encode("utf-16"), MALFORMED),
    "bytes that are no UTF-8": (b'{"amount": 1, "reference": "\xff\xfe"}', MALFORMED),
    "UTF-8 that is too long": (b'{"amount": 1, "reference": "\xc0\xaf"}', MALFORMED),
    "a name that is no UTF-8": (b'{"amount": 1, "\xff": 1}', MALFORMED),
    "half a surrogate pair": (b'{"amount": 1, "reference": "\\ud83d"}', MALFORMED),
    "a surrogate pair the wrong way round": (b'{"amount": 1, "reference": "\\ude00\\ud83d"}', MALFORMED),
    "a surrogate as UTF-8": (b'{"amount": 1, "reference": "\xed\xa0\xbd"}', MALFORMED),
    "a line feed in a text": (b'{"amount": 1, "reference": "a\nb"}', MALFORMED),
    "a form": (b"amount=1", MALFORMED),
    "XML": (b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]>', MALFORMED),
    # What is no object, or too deep.
    "a list": (b'[{"amount": 1}]', NO_OBJECT),
    "a text": (b'"amount"', NO_OBJECT),
    "null": (b"null", NO_OBJECT),
    "a number": (b"1", NO_OBJECT),
    "33 brackets": (b"[" * 33, MALFORMED),
    "60,000 brackets": (b"[" * 60_000, MALFORMED),
    "10,000 objects": (b'{"a":' * 10_000, MALFORMED),
    "deep in a field": (b'{"amount": 1, "metadata": %b%b}' % (b"[" * 5000, b"]" * 5000), MALFORMED),
    "deep in a field that there is not": (b'{"x": %b%b}' % (b"[" * 32, b"]" * 32), MALFORMED),
    "deep, and not too deep": (b'{"x": %b%b}' % (b"[" * 31, b"]" * 31), UNKNOWN),
    # Names.
    "nothing": (b"", MISSING),
    "an empty object": (b"{}", MISSING),
    "an amount twice": (b'{"amount": 1, "amount": 1000}', NO_OBJECT),
    "an amount twice, once in disguise": (b'{"amount": 1, "amo\\u0075nt": 1000}', NO_OBJECT),
    "a name twice in metadata": (b'{"amount": 1, "metadata": {"a": "1", "a": "2"}}', NO_OBJECT),
    "a field of another call": (body(currency="EUR"), UNKNOWN),
    "a field of the command": (body(actor_role="operator"), UNKNOWN),
    "a field in capitals": (b'{"Amount": 1}', UNKNOWN),
    "a prototype": (body(__proto__={"amount": 1}), UNKNOWN),
    "an empty name": (b'{"amount": 1, "": 1}', UNKNOWN),
    # Numbers.
    "zero": (amount("0"), NOT_POSITIVE),
    "minus zero": (amount("-0"), NOT_POSITIVE),
    "minus one": (amount("-1"), NOT_POSITIVE),
    "2**63": (amount(str(2**63)), TOO_LARGE),
    "2**64": (amount(str(2**64)), TOO_LARGE),
    "-2**63 - 1": (amount(str(-(2**63) - 1)), TOO_LARGE),
    "400 digits": (amount("9" * 400), TOO_LARGE),
    "5,000 digits": (amount("9" * 5000), MALFORMED),
    "60,000 digits": (amount("9" * 60_000), MALFORMED),
    "1.0": (amount("1.0"), INVALID),
    "1.5": (amount("1.5"), INVALID),
    "1e2": (amount("1e2"), INVALID),
    "1e400": (amount("1e400"), MALFORMED),
    "NaN": (amount("NaN"), MALFORMED),
    "Infinity": (amount("Infinity"), MALFORMED),
    "-Infinity": (amount("-Infinity"), MALFORMED),
    "007": (amount("007"), MALFORMED),
    "+1": (amount("+1"), MALFORMED),
    "0x1": (amount("0x1"), MALFORMED),
    "true": (amount("true"), INVALID),
    "null for an amount": (amount("null"), INVALID),
    "a text for an amount": (amount('"1"'), INVALID),
    "a list for an amount": (amount("[1]"), INVALID),
    # Texts.
    "a NUL in a reference": (body(reference="a\x00b"), INVALID),
    "256 characters": (body(reference="é" * 256), INVALID),
    "a number for a text": (body(reference=1), INVALID),
    "a large number for a text": (b'{"amount": 1, "reference": %b}' % (b"9" * 40), INVALID),
    "a NUL in a name": (body(metadata={"a\x00": "b"}), INVALID),
    "a NUL in metadata": (body(metadata={"a": "\x00"}), INVALID),
    "a name without characters": (body(metadata={"": "b"}), INVALID),
    "a name of 41 characters": (body(metadata={"é" * 41: "b"}), INVALID),
    "metadata of 501 characters": (body(metadata={"a": "é" * 501}), INVALID),
    "51 texts": (body(metadata={str(number): "" for number in range(51)}), INVALID),
    "numbers in metadata": (body(metadata={"a": 1}), INVALID),
    "metadata in metadata": (body(metadata={"a": {"b": "c"}}), INVALID),
    "a list for metadata": (body(metadata=["a"]), INVALID),
    "null for metadata": (body(metadata=None), INVALID),
    # Size.
    "64 KiB and a byte": (b'{"amount": 1}'.ljust(64 * 1024 + 1), (413, "body_too_large")),
    "10 MB": (b'{"amount": 1}'.ljust(10_000_000), (413, "body_too_large")),
}


@pytest.mark.parametrize("name", BODIES)
async def test_what_a_body_may_not_be(scene: Scene, name: str) -> None:
    content, expected = BODIES[name]
    wallet_id = scene.wallets["open"]
    reply = await scene.owner.ask("POST", f"/wallets/{wallet_id}/deposit", content)
    assert refusal(reply) == expected
    assert await scene.owner.balance(wallet_id) == 100


async def test_every_wrong_field_is_named(scene: Scene) -> None:
    wrong = {"amount": True, "from_wallet_id": "x", "metadata": {"a": 1}, "colour": "red"}
    reply = await scene.owner.post("/transactions", wrong)
    assert reply.status == 400
    assert {(each["field"], each["code"]) for each in reply.document["errors"]} == {
        ("colour", "unknown_field"),
        ("from_wallet_id", "invalid_field"),
        ("to_wallet_id", "missing_field"),
        ("amount", "invalid_field"),
        ("metadata[...]", "invalid_field"),
    }
    assert all(each["detail"] for each in reply.document["errors"])


async def test_the_largest_body_is_taken(zoe: ApiClient) -> None:
    wallet_id = await zoe.wallet()
    metadata = {f"{number:02}" + "n" * 38: "é" * 500 for number in range(50)}
    content = body(metadata=metadata, reference="é" * 255)
    reply = await zoe.ask("POST", f"/wallets/{wallet_id}/deposit", content.ljust(64 * 1024))
    assert (reply.status, reply.document["metadata"]) == (201, metadata)


async def test_a_body_that_leaves_no_room_for_what_a_command_adds_is_refused(zoe: ApiClient) -> None:
    # A command has the ids and the caller as well.
    metadata = {f"{number:02}": "\U0001f600" * 500 for number in range(32)} | {"a": "x" * 500, "b": "x" * 500}
    rest = 64 * 1024 - len(body(metadata=metadata | {"c": ""}))
    content = body(metadata=metadata | {"c": "x" * rest})
    assert 0 < rest <= 500
    reply = await zoe.ask("POST", f"/wallets/{await zoe.wallet()}/deposit", content)
    assert refusal(reply) == (413, "body_too_large")


# Headers.


HEADERS: dict[str, tuple[list[str], tuple[int, str]]] = {
    "no media type": (["Content-Type:"], (415, "unsupported_media_type")),
    "a form's media type": (
        ["Content-Type: application/x-www-form-urlencoded"],
        (415, "unsupported_media_type"),
    ),
    "a text's media type": (["Content-Type: text/json"], (415, "unsupported_media_type")),
    "many parts": (["Content-Type: multipart/form-data; boundary=x"], (415, "unsupported_media_type")),
    "a longer media type": (["Content-Type: application/jsonp"], (415, "unsupported_media_type")),
    "two media types": ([JSON, "Content-Type: text/plain"], (400, "bad_request")),
    "compressed": ([JSON, "Content-Encoding: gzip"], (415, "unsupported_media_type")),
    "an empty key": ([JSON, "Idempotency-Key:"], (400, "invalid_header")),
    "a key of 256 characters": ([JSON, "Idempotency-Key: " + "x" * 256], (400, "invalid_header")),
    "a key that is no ASCII": ([JSON, "Idempotency-Key: é"], (400, "invalid_header")),
    "a tab in a key": ([JSON, "Idempotency-Key: a\tb"], (400, "invalid_header")),
    "a NUL in a key": ([JSON, "Idempotency-Key: a\x00b"], (400, "bad_request")),
    "a line feed in a key": ([JSON, "Idempotency-Key: a\nX-Admin: true"], (400, "bad_request")),
    "a line that goes on": ([JSON, "Idempotency-Key: a\r\n b"], (400, "bad_request")),
    "a large header": ([JSON, "X-Large: " + "x" * 9000], (431, "headers_too_large")),
    "many headers": ([JSON, *(f"X-{number}: x" for number in range(100))], (431, "headers_too_large")),
}


@pytest.mark.parametrize("name", HEADERS)
async def test_what_a_header_may_not_be(scene: Scene, name: str) -> None:
    fields, expected = HEADERS[name]
    wallet_id = scene.wallets["open"]
    reply = await scene.owner.ask("POST", f"/wallets/{wallet_id}/deposit", b'{"amount": 1}', *fields)
    assert refusal(reply) == expected
    assert await scene.owner.balance(wallet_id) == 100


# Addresses.


BAD_ID = (400, "invalid_field")
ADDRESSES: dict[str, tuple[str, tuple[int, str]]] = {
    # Paths.
    "an id that is none": ("/wallets/x", BAD_ID),
    "SQL in an id": ("/wallets/'%20OR%201=1--", BAD_ID),
    "a header in an id": ("/wallets/%0d%0aSet-Cookie:%20a=b", BAD_ID),
    "a NUL in an id": (f"/wallets/{SOME_ID}%00", BAD_ID),
    "bytes that are no UTF-8": ("/wallets/%ff", BAD_ID),
    "a URN": (f"/wallets/urn:uuid:{SOME_ID}", BAD_ID),
    "a slash in an id": (f"/wallets/{SOME_ID}%2fevents", BAD_ID),
    "the folder above": ("/wallets/..%2f..%2fetc%2fpasswd", BAD_ID),
    "a number for an id": ("/transactions/1", BAD_ID),
    "another address": (f"/wallets/{SOME_ID}/balance", (404, "not_found")),
    "a slash at the end": (f"/wallets/{SOME_ID}/", (404, "not_found")),
    "a long address": ("/wallets/" + "a" * 5000, (414, "uri_too_long")),
    # Names in a query.
    "an unknown name": ("/wallets?colour=red", UNKNOWN),
    "an unknown name beside a wallet": (f"/wallets/{SOME_ID}?consistancy=strong", UNKNOWN),
    "a name in capitals": ("/wallets?Limit=1", UNKNOWN),
    "no name": ("/wallets?=1", UNKNOWN),
    "a name twice": ("/wallets?limit=1&limit=100", INVALID),
    "the name of another list": ("/transactions?currency=EUR", UNKNOWN),
    # Their values.
    "limit 0": ("/wallets?limit=0", INVALID),
    "limit 101": ("/wallets?limit=101", INVALID),
    "limit -1": ("/wallets?limit=-1", INVALID),
    "limit 1.5": ("/wallets?limit=1.5", INVALID),
    "limit empty": ("/wallets?limit=", INVALID),
    "limit null": ("/wallets?limit=null", INVALID),
    "limit true": ("/wallets?limit=true", INVALID),
    "limit of many digits": ("/wallets?limit=" + "9" * 400, INVALID),
    "limit of more digits": ("/wallets?limit=1" + "0" * 4000, INVALID),
    "limit with SQL": ("/wallets?limit=1%3BDROP%20TABLE%20wallets", INVALID),
    "an unknown status": ("/wallets?status=Open", INVALID),
    "no status": ("/wallets?status=", INVALID),
    "status null": ("/wallets?status=null", INVALID),
    "a long currency": ("/wallets?currency=EURO", INVALID),
    "NULs for a currency": ("/wallets?currency=%00%00%00", INVALID),
    "an unknown kind": ("/transactions?kind=payment", INVALID),
    "kind null": ("/transactions?kind=NULL", INVALID),
    "a wallet's id that is none": ("/transactions?wallet_id=x", INVALID),
    "a wallet's id with SQL": (f"/transactions?wallet_id={SOME_ID}'%3B--", INVALID),
    "wallet_id null": ("/transactions?wallet_id=null", INVALID),
    "an unknown consistency": (f"/wallets/{SOME_ID}?consistency=STRONG", INVALID),
    # Cursors.
    "cursor empty": ("/wallets?cursor=", (400, "invalid_cursor")),
    "cursor that is none": ("/wallets?cursor=abc", (400, "invalid_cursor")),
    "cursor null": ("/wallets?cursor=NULL", (400, "invalid_cursor")),
    "cursor with SQL": ("/wallets?cursor='%3BDROP%20TABLE%20wallets--", (400, "invalid_cursor")),
    "cursor with a NUL": ("/transactions?cursor=%00", (400, "invalid_cursor")),
    "cursor that is no UTF-8": ("/transactions?cursor=%ff", (400, "invalid_cursor")),
    "cursor of 512 characters": ("/transactions?cursor=" + "a" * 512, (400, "invalid_cursor")),
    "cursor of 513 characters": ("/transactions?cursor=" + "a" * 513, INVALID),
}


@pytest.mark.parametrize("name", ADDRESSES)
async def test_what_an_address_may_not_be(scene: Scene, name: str) -> None:
    path, expected = ADDRESSES[name]
    for worker in (0, 1):
        reply = await scene.owner.get(path, worker=worker)
        assert refusal(reply) == expected
        assert "Set-Cookie" not in reply.headers


async def test_the_cursor_of_one_list_leads_nowhere_in_another(zoe: ApiClient) -> None:
    wallet_id = await zoe.wallet()
    await zoe.wallet()
    for _ in range(2):
        await zoe.deposit(wallet_id, 1)
    lists = [
        "/wallets",
        "/transactions",
        f"/transactions?wallet_id={wallet_id}",
        f"/wallets/{wallet_id}/events",
    ]
    asked = [f"{path}{'&' if '?' in path else '?'}limit=1" for path in lists]
    cursors = {}
    for path in asked:
        page = await until(lambda path=path: zoe.get(path), lambda page: page.document["has_more"])
        cursors[path] = page.document["next_cursor"]
    for path in asked:
        for source, cursor in cursors.items():
            reply = await zoe.get(f"{path}&cursor={cursor}")
            assert (reply.status == 200) == (source == path), (path, source)


# Texts.


TEXTS = (
    "'; DROP TABLE wallets; --",
    '" OR ""="',
    "Robert'); DELETE FROM transactions WHERE ('a' = 'a",
    "\\'; SELECT pg_sleep(10); --",
    "%s %(id)s {0} {id} ${jndi:ldap://localhost/a}",
    "a\r\nSet-Cookie: session=stolen\r\n\r\n<html>",
    "<script>alert(1)</script>",
    "$(reboot) `reboot` | reboot",
    "../../etc/passwd",
    "=cmd|' /C calc'!A0",
    "\t\x01\x1f\x7f\x80\u200b\u202e\ufeff\ufffe\uffff",
    "e\u0301 and \u00e9 \U0001f600 \U0010ffff",
    "NULL",
    " ",
    "",
)


@pytest.mark.parametrize("text", TEXTS)
async def test_texts_are_kept_as_they_are(zoe: ApiClient, operator: ApiClient, text: str) -> None:
    labels = {text[:40] or "a": text}
    wallet_id = await zoe.wallet(100, metadata=labels)
    other = await zoe.wallet()
    moved = await zoe.post(
        "/transactions",
        {
            "from_wallet_id": wallet_id,
            "to_wallet_id": other,
            "amount": 1,
            "reference": text,
            "metadata": labels,
        },
    )
    assert (moved.status, moved.document["reference"], moved.document["metadata"]) == (201, text, labels)
    assert "Set-Cookie" not in moved.headers
    await operator.post(f"/wallets/{wallet_id}/freeze", {"reason": text})
    path = f"/wallets/{wallet_id}"
    events = await until(lambda: zoe.all_of(f"{path}/events"), lambda found: len(found) == 4)
    assert events[0]["reason"] == text
    # From memory, from Redis, and from PostgreSQL.
    shown = [(await zoe.get(path, worker=worker)).document for worker in (0, 1)]
    listed = await until(lambda: zoe.all_of("/wallets"), lambda found: found[1]["version"] == 4)
    for wallet in (*shown, listed[1]):
        assert (wallet["metadata"], wallet["balance"], wallet["status"]) == (labels, 99, "frozen")
    transfer, deposit = await until(
        lambda: zoe.all_of("/transactions"),
        lambda found: len(found) == 2 and found[0]["status"] != "pending",
    )
    assert transfer == moved.document and deposit["amount"] == 100


async def test_an_account_may_have_any_text_as_password_and_no_e_mail_address_that_is_none(
    clients: ApiClients,
) -> None:
    async def attempt(path: str, email: str, password: str) -> Any:
        content = msgspec.json.encode({"email": email, "password": password})
        return await ask(clients.ports[0], "POST", f"/api/v1/{path}", JSON, body=content)

    for text in TEXTS:
        password, name = f"{text} and more: {secrets.token_hex(8)}", secrets.token_hex(8)
        for path in ("register", "login"):
            assert refusal(await attempt(path, text, password)) == (422, "invalid_email")
        if not is_text(password):
            reply = await attempt("register", f"{name}@example.com", password)
            assert refusal(reply) == (422, "password_not_text")
            continue
        for path, status in (("register", 201), ("login", 200)):
            reply = await attempt(path, f"{name}@example.com", password)
            assert (reply.status, reply.document["user"]["email"]) == (status, f"{name}@example.com")
        assert refusal(await attempt("login", f"{name}@example.com", text)) == (401, "invalid_credentials")


async def test_a_refresh_token_that_is_none_gets_nothing(clients: ApiClients) -> None:
    for text in (*TEXTS, str(uuid4()), "a" * 1024):
        content = msgspec.json.encode({"refresh_token": text})
        reply = await ask(clients.ports[0], "POST", "/api/v1/refresh", JSON, body=content)
        assert refusal(reply) == (401, "invalid_refresh_token")
        reply = await ask(clients.ports[0], "POST", "/api/v1/logout", JSON, body=content)
        assert reply.status == 204
