"""Auth over HTTP, at two workers: what is answered, with which headers, and that it holds between workers."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import aiohttp
import jwt
import pytest

from mercuria.auth.emails import Email, parse_email
from mercuria.auth.token_keys import parse_keys
from mercuria.embedded.stack import Stack
from mercuria.redis.client import connect
from tests.auth.conftest import PASSWORD
from tests.auth.test_command_line import CommandLine

PROBLEM = "application/problem+json"


class Reply(NamedTuple):
    """An answer: its status, its JSON and its headers."""

    status: int
    body: Any
    headers: dict[str, str]

    @property
    def code(self) -> tuple[int, str]:
        """The status and the code of a problem."""
        assert self.headers["Content-Type"].startswith(PROBLEM), self.body
        return self.status, self.body["code"]


class Client:
    """Asks the two workers."""

    def __init__(self, session: aiohttp.ClientSession, stack: Stack) -> None:
        self.stack = stack
        self._session = session
        self.urls = [f"http://{worker.address}" for worker in stack.workers]

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        token: str | None = None,
        worker: int = 0,
        **headers: str,
    ) -> Reply:
        """Ask one worker."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        url = self.urls[worker] + path
        async with self._session.request(method, url, json=body, headers=sent) as answer:
            content = await answer.read()
            return Reply(answer.status, json.loads(content) if content else None, dict(answer.headers))

    async def register(self, email: str | None = None, password: str = PASSWORD) -> Reply:
        """Register somebody."""
        return await self.ask("POST", "/api/v1/register", {"email": email or address(), "password": password})

    async def login(self, email: str, password: str = PASSWORD, worker: int = 0) -> Reply:
        """Log somebody in."""
        return await self.ask("POST", "/api/v1/login", {"email": email, "password": password}, worker=worker)

    async def refresh(self, token: str, worker: int = 0) -> Reply:
        """Spend a refresh token."""
        return await self.ask("POST", "/api/v1/refresh", {"refresh_token": token}, worker=worker)

    async def me(self, token: str | None, worker: int = 0) -> Reply:
        """Ask who one is."""
        return await self.ask("GET", "/api/v1/me", token=token, worker=worker)


@pytest.fixture
async def client(live_stack: Stack) -> AsyncIterator[Client]:
    """Return a client of the shared stack."""
    timeout = aiohttp.ClientTimeout(total=30)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
        yield Client(session, live_stack)


def address() -> str:
    """Return an e-mail address that nobody has used."""
    return f"Somebody-{secrets.token_hex(6)}@example.com"


# As it should be.


async def test_register_log_in_refresh_log_out(client: Client) -> None:
    email = address()
    registered = await client.register(email)
    assert (registered.status, registered.headers["Cache-Control"]) == (201, "no-store")
    first = registered.body
    assert first.keys() == {"user", "access_token", "refresh_token", "token_type", "expires_in"}
    assert (first["token_type"], first["expires_in"]) == ("Bearer", 900)
    assert first["user"].keys() == {"id", "email", "role", "created_at"}
    assert (first["user"]["email"], first["user"]["role"]) == (email, "user")
    assert first["user"]["created_at"].endswith("Z")

    me = await client.me(first["access_token"], worker=1)
    assert (me.status, me.body, me.headers["Cache-Control"]) == (200, first["user"], "no-store")

    logged_in = await client.login(email.upper(), worker=1)
    assert (logged_in.status, logged_in.headers["Cache-Control"]) == (200, "no-store")
    assert logged_in.body["user"] == first["user"]

    refreshed = await client.refresh(first["refresh_token"], worker=1)
    assert (refreshed.status, refreshed.headers["Cache-Control"]) == (200, "no-store")
    assert refreshed.body.keys() == first.keys()
    assert refreshed.body["user"] == first["user"]
    assert (await client.me(refreshed.body["access_token"])).status == 200

    left = await client.ask("POST", "/api/v1/logout", {"refresh_token": refreshed.body["refresh_token"]})
    assert (left.status, left.body) == (204, None)
    assert (await client.refresh(refreshed.body["refresh_token"])).code == (401, "invalid_refresh_token")
    assert (await client.refresh(logged_in.body["refresh_token"])).status == 200, "another session goes on"


async def test_an_operator_made_on_the_command_line_has_the_role(client: Client) -> None:
    email = address()
    command_line = CommandLine(client.stack.directory.path)
    made = await asyncio.to_thread(command_line, "user", "create", email, "--role", "operator", said=PASSWORD)
    assert made.code == 0, made.err
    session = (await client.login(email)).body
    assert session["user"]["role"] == "operator"
    assert jwt.decode(session["access_token"], options={"verify_signature": False})["role"] == "operator"


async def test_anybody_can_verify_a_token_with_the_public_keys(client: Client) -> None:
    token = (await client.register()).body["access_token"]
    published = await client.ask("GET", "/.well-known/jwks.json", worker=1)
    assert (published.status, published.headers["Cache-Control"]) == (200, "public, max-age=60")
    assert all("d" not in key for key in published.body["keys"])
    key = jwt.PyJWKSet.from_dict(published.body)[jwt.get_unverified_header(token)["kid"]]
    claims = jwt.decode(token, key, ["EdDSA"], audience="mercuria", issuer="mercuria")
    assert claims["sub"] == (await client.me(token)).body["id"]
    assert (await client.ask("HEAD", "/.well-known/jwks.json")).status == 200


# As it should not be.


async def test_refusals_have_their_codes(client: Client) -> None:
    email = address()
    assert (await client.register(email)).status == 201
    assert (await client.register(email.upper())).code == (409, "email_taken")
    assert (await client.register("nobody")).code == (422, "invalid_email")
    assert (await client.register(password="short")).code == (422, "password_too_short")
    assert (await client.register(password="x" * 129)).code == (422, "password_too_long")
    weak = await client.register(password="password1")
    assert weak.code == (422, "password_too_common")
    assert [(error["field"], error["code"]) for error in weak.body["errors"]] == [
        ("password", "password_too_common")
    ]
    assert (await client.login("nobody")).code == (422, "invalid_email")
    assert (await client.refresh("unknown")).code == (401, "invalid_refresh_token")


async def test_a_wrong_password_and_an_unknown_address_are_answered_alike(client: Client) -> None:
    email = address()
    await client.register(email)
    wrong = await client.login(email, "another password of mine")
    unknown = await client.login(address(), "another password of mine")
    for reply in (wrong, unknown):
        reply.body.pop("instance")
    assert wrong.code == unknown.code == (401, "invalid_credentials")
    assert wrong.body == unknown.body
    assert wrong.headers.keys() == unknown.headers.keys()


@pytest.mark.parametrize("path", ["/api/v1/register", "/api/v1/login"])
@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "missing_field"),
        ({"email": "zoe@example.com"}, "missing_field"),
        ({"email": "zoe@example.com", "password": PASSWORD, "role": "operator"}, "unknown_field"),
        ({"email": ["zoe@example.com"], "password": PASSWORD}, "invalid_field"),
        ({"email": "zoe@example.com", "password": None}, "invalid_field"),
        ({"email": "zoe@example.com", "password": "x" * 1025}, "invalid_field"),
        ({"email": "x" * 1025, "password": PASSWORD}, "invalid_field"),
        ([], "malformed_body"),
    ],
)
async def test_malformed_bodies_are_refused_without_saying_them_again(
    client: Client, path: str, body: Any, code: str
) -> None:
    reply = await client.ask("POST", path, body)
    assert reply.code == (400, code)
    assert PASSWORD not in json.dumps(reply.body)
    assert "xxxxx" not in json.dumps(reply.body)


async def test_who_has_no_token_that_counts_is_challenged(client: Client) -> None:
    missing = await client.me(None)
    assert missing.code == (401, "missing_token")
    assert missing.headers["WWW-Authenticate"] == 'Bearer realm="mercuria"'
    good = (await client.register()).body["access_token"]
    for bad in ("garbage", good[:-4] + "AAAA", good + "é".encode().decode("latin-1"), "x" * 5000):
        reply = await client.me(bad)
        assert reply.code == (401, "invalid_token")
        assert 'error="invalid_token"' in reply.headers["WWW-Authenticate"]
    basic = await client.ask("GET", "/api/v1/me", Authorization="Basic em9lOng=")
    assert basic.code == (401, "missing_token")


async def test_a_token_in_the_address_counts_for_nothing(client: Client) -> None:
    token = (await client.register()).body["access_token"]
    assert (await client.ask("GET", f"/api/v1/me?access_token={token}")).code[0] in (400, 401)


async def test_logging_out_is_always_answered_alike(client: Client) -> None:
    token = (await client.register()).body["refresh_token"]
    for each in (token, token, "unknown", ""):
        reply = await client.ask("POST", "/api/v1/logout", {"refresh_token": each})
        assert (reply.status, reply.body) == (204, None)


# Between workers.


async def test_twenty_refreshes_at_once_over_two_workers_give_one_session_at_most(client: Client) -> None:
    for _ in range(3):
        token = (await client.register()).body["refresh_token"]
        replies = await asyncio.gather(*(client.refresh(token, number % 2) for number in range(20)))
        won = [reply.body["refresh_token"] for reply in replies if reply.status == 200]
        lost = [reply.code for reply in replies if reply.status != 200]
        assert len(won) <= 1
        assert lost == [(401, "refresh_token_reused")] * (20 - len(won))
        for each in won:
            assert (await client.refresh(each)).code == (401, "invalid_refresh_token")


async def test_a_rotation_of_keys_reaches_both_workers_without_a_restart(client: Client) -> None:
    email = address()
    old = (await client.register(email)).body["access_token"]
    assert [(await client.me(old, worker)).status for worker in (0, 1)] == [200, 200]
    command_line = CommandLine(client.stack.directory.path)
    rotated = await asyncio.to_thread(command_line, "keys", "rotate")
    assert rotated.code == 0, rotated.err
    kid = parse_keys((client.stack.directory.path / "token-keys.json").read_text()).keys[-1].kid

    async def new_token() -> str | None:
        token = str((await client.login(email)).body["access_token"])
        return token if jwt.get_unverified_header(token)["kid"] == kid else None

    async with asyncio.timeout(10):
        while (new := await new_token()) is None:
            pass
    assert (await client.me(new, worker=1)).status == 200, "met for the first time, and taken at once"
    assert [(await client.me(old, worker)).status for worker in (0, 1)] == [200, 200]
    published = await client.ask("GET", "/.well-known/jwks.json", worker=1)
    assert {kid, jwt.get_unverified_header(old)["kid"]} <= {key["kid"] for key in published.body["keys"]}


async def test_what_is_tried_too_often_is_refused_by_both_workers(client: Client) -> None:
    email = address()
    body = {"email": email, "password": PASSWORD}
    replies = [
        await client.ask(
            "POST", "/api/v1/register", body, worker=number % 2, X_Forwarded_For=f"198.51.100.{number}"
        )
        for number in range(7)
    ]
    assert [reply.status for reply in replies] == [201, 409, 409, 409, 409, 429, 429]
    assert replies[-1].code == (429, "too_many_requests")
    assert 3500 <= int(replies[-1].headers["Retry-After"]) <= 3600
    assert (await client.login(email)).status == 200, "logging in is counted apart"


async def test_only_a_failed_login_counts_against_an_account(client: Client) -> None:
    email = address()
    parsed = parse_email(email)
    assert isinstance(parsed, Email)
    redis = connect(client.stack.env["MERCURIA_REDIS"])

    async def failures() -> int:
        keys = [key async for key in redis.scan_iter(f"*login:*{parsed.pseudonym}*", count=1000)]
        return sum([await redis.llen(key) for key in keys])

    try:
        assert (await client.register(email)).status == 201
        for _ in range(3):
            assert (await client.login(email)).status == 200
        assert await failures() == 0
        elsewhere: dict[str, str] = {"X_Forwarded_For": "198.51.100.201"}
        wrong = {"email": email, "password": "not the right one"}
        for _ in range(2):
            reply = await client.ask("POST", "/api/v1/login", wrong, **elsewhere)
            assert reply.code == (401, "invalid_credentials")
        assert await failures() == 2
        assert (await client.login(email, "not the right one")).status == 401
        assert await failures() == 2, (
            "where the owner has logged in before, failures have a limit of their own"
        )
    finally:
        await redis.aclose()


# What is kept secret, and what goes on without PostgreSQL.


async def test_no_secret_is_in_a_log(client: Client) -> None:
    secret = f"a secret of {secrets.token_hex(8)}"
    email = address()
    session = (await client.register(email, secret)).body
    await client.login(email, secret)
    await client.login(email, secret + "x")
    await client.me(session["access_token"])
    await client.me(session["access_token"] + "x")
    await client.refresh(session["refresh_token"])
    await client.refresh(session["refresh_token"])
    await client.ask("POST", "/api/v1/register", {"email": email, "password": secret, "more": secret})
    logs = [file.read_text(errors="replace") for file in (client.stack.directory.path / "logs").iterdir()]
    told = (secret, session["access_token"], session["refresh_token"], email)
    assert [text in log for log in logs for text in told] == [False] * len(logs) * len(told)


async def test_while_postgresql_is_away_access_tokens_count_and_nobody_logs_in(client: Client) -> None:
    email = address()
    session = (await client.register(email)).body
    await asyncio.to_thread(client.stack.postgres.stop)
    try:
        for reply in (
            await client.login(email),
            await client.register(),
            await client.refresh(session["refresh_token"]),
            await client.ask("POST", "/api/v1/logout", {"refresh_token": session["refresh_token"]}),
            await client.me(session["access_token"]),
        ):
            assert reply.code == (503, "database_unavailable")
            assert int(reply.headers["Retry-After"]) >= 1
        assert (await client.me("garbage")).code == (401, "invalid_token")
        assert (await client.ask("GET", "/.well-known/jwks.json")).status == 200
    finally:
        await asyncio.to_thread(client.stack.postgres.start)
    for worker in (0, 1):
        assert (await client.login(email, worker=worker)).status == 200
    assert (await client.refresh(session["refresh_token"])).status == 200
