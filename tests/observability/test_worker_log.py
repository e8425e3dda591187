"""What a worker logs while people use it: one JSON object a line, a command's whole way, and no secret."""

import json
from typing import Any

from mercuria.projections.registry import PROJECTIONS
from mercuria.topics import LEDGER_EVENTS, TRANSACTION_EVENTS, WALLET_COMMANDS, WALLET_EVENTS
from tests.observability.conftest import COLLECTOR_TOKEN, PASSWORD, TracedStack, funded, registered
from tests.web.api_client import until

WRONG = "wrong-Horse 8 staple"


async def test_a_request_can_be_followed_through_all_stages_by_its_id(traced: TracedStack) -> None:
    session = await registered(traced, "follow@example.org")
    token, user_id = session["access_token"], session["user"]["id"]
    body = {
        "from_wallet_id": await funded(traced, token, 100),
        "to_wallet_id": await funded(traced, token, 1),
        "amount": 7,
    }
    reply = await traced.ask("POST", "/transactions", body, "X-Request-Id: follow.me-1", token=token)
    assert reply.status == 201
    command_id = reply.document["id"]

    async def of_request() -> list[dict[str, Any]]:
        return traced.lines(request_id="follow.me-1")

    # Both wallets' events end up as one completed transaction, with two entries.
    records = {WALLET_EVENTS: 2, TRANSACTION_EVENTS: 1, LEDGER_EVENTS: 2}
    readers = [(name, flow.reads) for name, flow in PROJECTIONS.items() for _ in range(records[flow.reads])]
    readers += [("wallets", WALLET_COMMANDS)] * 2
    lines = await until(
        of_request, lambda seen: len([line for line in seen if "reader" in line]) >= len(readers)
    )
    answered = [line for line in lines if "route" in line]
    assert len(answered) == 1 and answered[0]["duration_ms"] > 0
    fields = {name: answered[0][name] for name in ("level", "method", "route", "status", "user_id")}
    assert fields == {
        "level": "info",
        "method": "POST",
        "route": "/api/v1/transactions",
        "status": 201,
        "user_id": user_id,
    }
    sent, *done = [line for line in lines if "topic" in line]
    assert sent["topic"] == WALLET_COMMANDS and sent["event"] == "A command is sent."
    assert sorted((line["reader"], line["topic"]) for line in done) == sorted(readers)
    assert {line["command_id"] for line in [sent, *done]} == {command_id}
    assert {line["transaction_id"] for line in done} == {command_id}
    assert all(line["offset"] >= 0 and 0 <= line["partition"] < 8 for line in done)


async def test_no_secret_is_logged(traced: TracedStack) -> None:
    email = "nobody.else@example.org"
    session = await registered(traced, email)
    secrets = [PASSWORD, WRONG, COLLECTOR_TOKEN, email, session["access_token"], session["refresh_token"]]

    async def say(method: str, path: str, body: Any = None, *fields: str, token: str = "") -> Any:
        reply = await traced.ask(method, path, body, *fields, token=token)
        return reply.document if reply.body else None

    again = await say("POST", "/login", {"email": email, "password": PASSWORD})
    refreshed = await say("POST", "/refresh", {"refresh_token": again["refresh_token"]})
    secrets += [one[name] for one in (again, refreshed) for name in ("access_token", "refresh_token")]
    reused = await say("POST", "/refresh", {"refresh_token": again["refresh_token"]})
    assert reused["code"] == "refresh_token_reused"
    assert (await say("POST", "/login", {"email": email, "password": WRONG}))["code"] == "invalid_credentials"
    assert (await say("POST", "/register", {"email": email, "password": PASSWORD}))["code"] == "email_taken"
    # Where nobody expects them: in the address, in another header, in a broken body, in a wrong token.
    token = session["access_token"]
    await say("GET", f"/wallets?access_token={token}", token=token)
    await say("GET", f"/{email}/{token}", None, f"X-Request-Id: {token}", f"Cookie: token={token}")
    await say("POST", "/login", {"email": email, "password": [WRONG]})
    assert (await say("GET", "/me", token=token[:-8] + "AAAAAAAA"))["code"] == "invalid_token"
    source, target = await funded(traced, token, 100), await funded(traced, token, 1)
    body = {"from_wallet_id": source, "to_wallet_id": target, "amount": 7}
    moved = await say(
        "POST", "/transactions", body, "Idempotency-Key: once", "X-Request-Id: last", token=token
    )
    assert moved["status"] == "completed"
    await say("POST", "/logout", {"refresh_token": session["refresh_token"]})

    async def last() -> list[dict[str, Any]]:
        return traced.lines(request_id="last", reader="ledger")

    await until(last, bool)
    directory = traced.stack.directory.path
    secrets.append((directory / "leg.key").read_text().strip())
    secrets += [key["d"] for key in json.loads((directory / "token-keys.json").read_text())["keys"]]
    # Of a token, its end is enough for who can guess the rest.
    secrets += [secret.rpartition(".")[2] for secret in secrets if secret.startswith("eyJ")]
    log = traced.log
    assert [secret for secret in secrets if secret in log or json.dumps(secret)[1:-1] in log] == []
    assert "Bearer ey" not in log


async def test_failures_of_requests_are_told_and_health_is_not_at_every_look(traced: TracedStack) -> None:
    reply = await traced.ask("GET", "/nowhere", None, "X-Request-Id: lost-1")
    assert reply.status == 404
    (line,) = traced.lines(request_id="lost-1")
    assert (line["level"], line["status"], line["route"], line["user_id"]) == ("info", 404, None, None)
    looks = traced.lines(route="/health/ready")
    assert looks and {line["level"] for line in looks} == {"debug"}


def test_each_line_is_one_json_object(traced: TracedStack) -> None:
    # Read once, as the worker goes on writing; what is no JSON object ends it.
    lines = traced.lines()
    assert {line["worker"] for line in lines} == {"worker-1"}
    for name in ("time", "level", "logger", "event"):
        assert all(isinstance(line[name], str) for line in lines), name
    assert any(line["logger"].startswith(("faust", "mode")) and "service" in line for line in lines)
