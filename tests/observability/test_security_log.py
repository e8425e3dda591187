"""Security events: what a worker logs of attempts to get in and of refusals, of whom it does not name."""

from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from mercuria.auth.emails import Email, parse_email
from mercuria.auth.security_log import SENTENCES, Event, Pseudonyms
from mercuria.config import Settings
from tests.observability.conftest import PASSWORD, TracedStack, registered
from tests.web.api_client import until
from tests.web.wire import ask

OPERATIONS = Path(__file__).resolve().parents[2] / "docs" / "operations.md"
AGENT = "curl/8 \x9b2K\x85 2026-01-01T00:00:00Z \u00e9"


def parsed(text: str) -> Email:
    """Return an address that could exist."""
    email = parse_email(text)
    assert isinstance(email, Email)
    return email


def pseudonyms_of(traced: TracedStack) -> Pseudonyms:
    """Return the pseudonyms of a stack."""
    return Pseudonyms(Settings.from_env({"MERCURIA_DATA_DIR": str(traced.stack.directory.path)}).leg_key)


async def logged(traced: TracedStack, event: Event, request_id: str) -> dict[str, Any]:
    """Return the one event of a request."""

    async def look() -> list[dict[str, Any]]:
        return traced.lines(security_event=str(event), request_id=request_id)

    (found,) = await until(look, bool)
    assert (found["level"], found["logger"], found["event"]) == (
        "warning",
        "mercuria.security",
        SENTENCES[event],
    )
    return found


def test_a_pseudonym_needs_the_key_of_the_installation() -> None:
    zoe, other = parsed("zoe@example.com"), parsed("max@example.com")
    here, there = Pseudonyms(lambda: b"k" * 32), Pseudonyms(lambda: b"l" * 32)
    assert here.of_email(zoe) == Pseudonyms(lambda: b"k" * 32).of_email(parsed("ZOE@example.com"))
    assert len({here.of_email(zoe), here.of_email(other), there.of_email(zoe), zoe.pseudonym}) == 4
    assert here.of_user(UUID(int=1)) != here.of_user(UUID(int=2))
    assert len(here.of_email(zoe)) == 32 and "zoe" not in here.of_email(zoe)


async def test_a_login_that_fails_is_an_event_that_does_not_name_the_account(traced: TracedStack) -> None:
    address = f"somebody.{uuid4().hex}@example.org"
    body = {"email": address.upper(), "password": PASSWORD}
    fields = ("X-Request-Id: failed-1", f"User-Agent: {AGENT}")
    assert (await traced.ask("POST", "/login", body, *fields)).status == 401
    found = await logged(traced, Event.LOGIN_FAILED, "failed-1")
    assert found["account"] == pseudonyms_of(traced).of_email(parsed(address))
    assert (found["address"], found["method"], found["route"]) == ("127.0.0.1", "POST", "/api/v1/login")
    assert "curl/8" in found["user_agent"] and "user" not in found
    assert address not in traced.log.lower()
    assert "\x9b" not in traced.log and "\x85" not in traced.log


async def test_a_long_user_agent_is_cut(traced: TracedStack) -> None:
    body = {"email": "nobody-at-all@example.org", "password": PASSWORD}
    fields = ("X-Request-Id: failed-2", f"User-Agent: {'x' * 4000}")
    assert (await traced.ask("POST", "/login", body, *fields)).status == 401
    assert (await logged(traced, Event.LOGIN_FAILED, "failed-2"))["user_agent"] == "x" * 200


async def test_a_refresh_token_that_comes_twice_is_an_event(traced: TracedStack) -> None:
    session = await registered(traced, f"{uuid4().hex}@example.org")
    token = {"refresh_token": session["refresh_token"]}
    assert (await traced.ask("POST", "/refresh", token, "X-Request-Id: reused-1")).status == 200
    assert (await traced.ask("POST", "/refresh", token, "X-Request-Id: reused-2")).status == 401
    found = await logged(traced, Event.REFRESH_REUSED, "reused-2")
    assert found["user"] == pseudonyms_of(traced).of_user(UUID(session["user"]["id"]))
    assert not traced.lines(security_event=str(Event.REFRESH_REUSED), request_id="reused-1")
    assert session["refresh_token"] not in traced.log


async def test_every_call_that_is_forbidden_is_an_event(traced: TracedStack) -> None:
    session = await registered(traced, f"{uuid4().hex}@example.org")
    other = await registered(traced, f"{uuid4().hex}@example.org")
    token, whose = session["access_token"], pseudonyms_of(traced).of_user(UUID(session["user"]["id"]))
    opened = await traced.ask("POST", "/wallets", {"currency": "EUR"}, token=other["access_token"])
    wallet = opened.document["id"]
    calls = {
        "operator_required": ("GET", "/metrics/daily", None, "/api/v1/metrics/daily"),
        "not_yours": (
            *("GET", f"/metrics/users/{other['user']['id']}", None),
            "/api/v1/metrics/users/{user_id}",
        ),
        "not_wallet_owner": (
            *("POST", f"/wallets/{wallet}/withdraw", {"amount": 1}),
            "/api/v1/wallets/{wallet_id}/withdraw",
        ),
    }
    for number, (code, (method, path, body, route)) in enumerate(calls.items()):
        id_ = f"denied-{number}"
        reply = await traced.ask(method, path, body, f"X-Request-Id: {id_}", token=token)
        assert (reply.status, reply.code) == (403, code)
        found = await logged(traced, Event.ACCESS_DENIED, id_)
        assert (found["code"], found["user"], found["route"]) == (code, whose, route)
        assert found["address"] == "127.0.0.1"


async def test_a_registration_beyond_the_limit_is_an_event(traced: TracedStack) -> None:
    port, email = traced.stack.workers[0].port, f"{uuid4().hex}@example.org"
    body = f'{{"email": "{email}", "password": "{PASSWORD}"}}'.encode()
    for number in range(6):
        fields = (f"X-Request-Id: limited-{number}", "Content-Type: application/json")
        reply = await ask(port, "POST", "/api/v1/register", *fields, body=body)
    assert (reply.status, reply.code) == (429, "too_many_requests")
    found = await logged(traced, Event.REGISTRATION_LIMITED, "limited-5")
    assert found["account"] == pseudonyms_of(traced).of_email(parsed(email))


def test_every_event_is_documented() -> None:
    section = OPERATIONS.read_text("utf-8").partition("### Security events\n")[2].partition("\n#")[0]
    rows = [line.split("`")[1] for line in section.splitlines() if line.startswith("| `")]
    assert rows[1:] == list(map(str, Event)), "the first row is the heading"
