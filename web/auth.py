"""Auth: people register, log in, refresh their session and log out; and the keys that access tokens are signed with.

Endpoints that need PostgreSQL answer 503 while it is unavailable. Access tokens stay valid: their check does
not need PostgreSQL.
"""

from collections.abc import Awaitable, Callable
from typing import Annotated

from msgspec import Meta, Struct

from mercuria.auth.accounts import ReusedToken, Session, User
from mercuria.auth.emails import parse_email
from mercuria.auth.rate_limits import Action
from mercuria.auth.security_log import Event
from mercuria.auth.tokens import TokenFault
from mercuria.http.gate import USER_ID
from mercuria.http.problems import Problem
from mercuria.kafka.crash import crash_on_bug
from mercuria.postgres.database import DatabaseUnavailable
from mercuria.web.context import Context
from mercuria.web.endpoint import ANYONE, Answer, Call, endpoint
from mercuria.web.security import address_of, report

SECRET = {"Cache-Control": "no-store"}
PUBLISHED = {"Cache-Control": "public, max-age=60"}
"""How long clients may cache the public keys.

A new key signs immediately, so a client that meets an unknown key fetches them again.
"""

LIMITED: dict[Action, Event] = {
    "login": Event.LOGIN_LIMITED,
    "register": Event.REGISTRATION_LIMITED,
}

Text = Annotated[str, Meta(max_length=1024)]
Attempt = Callable[..., Awaitable[Session | Problem]]


class Credentials(Struct, frozen=True, forbid_unknown_fields=True):
    """Who wants to be logged in, and why it is them."""

    email: Annotated[Text, Meta(examples=["zoe@example.com"])]
    password: Annotated[Text, Meta(extra_json_schema={"format": "password"})]


class RefreshToken(Struct, frozen=True, forbid_unknown_fields=True):
    """A refresh token, as the last session gave it."""

    refresh_token: Text


class Jwk(Struct, frozen=True):
    """A public key (RFC 8037)."""

    kty: str
    crv: str
    x: str
    kid: str
    alg: str
    use: str


class Jwks(Struct, frozen=True):
    """The public keys that access tokens are checked with (RFC 7517)."""

    keys: list[Jwk]


@endpoint(
    "POST",
    "/api/v1/register",
    access=ANYONE,
    body=Credentials,
    answers={201: Session},
    problems=(
        "invalid_email",
        "password_not_text",
        "password_too_short",
        "password_too_long",
        "password_too_common",
        "email_taken",
        "too_many_requests",
        "database_unavailable",
    ),
)
async def register(call: Call) -> Answer | Problem:
    """Make an account, and log in to it."""
    return await _attempt(call, "register", call.context.accounts.register, 201)


@endpoint(
    "POST",
    "/api/v1/login",
    access=ANYONE,
    body=Credentials,
    answers={200: Session},
    problems=("invalid_email", "invalid_credentials", "too_many_requests", "database_unavailable"),
)
async def login(call: Call) -> Answer | Problem:
    """Begin a session. A refusal does not show whether an account with that e-mail address exists."""
    return await _attempt(call, "login", call.context.accounts.login, 200)


@endpoint(
    "POST",
    "/api/v1/refresh",
    access=ANYONE,
    body=RefreshToken,
    answers={200: Session},
    problems=(
        "invalid_refresh_token",
        "refresh_token_expired",
        "refresh_token_reused",
        "database_unavailable",
    ),
)
async def refresh(call: Call) -> Answer | Problem:
    """Spend a refresh token for a new session. Used a second time, it ends the session of who used it first, too."""
    session = await call.context.accounts.refresh(call.body.refresh_token)
    if isinstance(session, ReusedToken):
        report(call.context, Event.REFRESH_REUSED, call.request, user_id=session.user_id)
    return session if isinstance(session, Problem) else Answer(session, headers=SECRET)


@endpoint(
    "POST",
    "/api/v1/logout",
    access=ANYONE,
    body=RefreshToken,
    answers={204: None},
    problems=("database_unavailable",),
)
async def logout(call: Call) -> Answer | Problem:
    """End the session that a refresh token belongs to; one that belongs to none is answered alike (RFC 7009)."""
    await call.context.accounts.logout(call.body.refresh_token)
    return Answer(status=204)


@endpoint("GET", "/api/v1/me", answers={200: User}, problems=("database_unavailable",))
async def me(call: Call) -> Answer | Problem:
    """Show the caller's own account."""
    user = await call.context.accounts.user(call.caller.id)
    if user is None:
        # The token is valid, and the account is gone, for example after the database was restored from a backup.
        fault = TokenFault.INVALID_TOKEN
        return Problem(fault, headers={"WWW-Authenticate": fault.challenge})
    return Answer(user, headers=SECRET)


@endpoint("GET", "/.well-known/jwks.json", access=ANYONE, answers={200: Jwks})
async def jwks(call: Call) -> Answer | Problem:
    """Show the public keys, with which anybody can check access tokens."""
    return Answer(call.context.tokens.jwks(), headers=PUBLISHED)


async def _attempt(call: Call, action: Action, attempt: Attempt, status: int) -> Answer | Problem:
    """Let a client try credentials, unless it exceeds the rate limit; then no password is checked."""
    email = parse_email(call.body.email)
    if isinstance(email, Problem):
        return email
    address, limits = address_of(call.context, call.request), call.context.rate_limits
    refusal = await limits.refusal(action, address, email)
    if refusal is not None:
        report(call.context, LIMITED[action], call.request, email=email)
        return refusal
    try:
        session = await attempt(email, call.body.password)
    except DatabaseUnavailable:
        await limits.give_back(action, address, email)
        raise
    if isinstance(session, Problem):
        if session.code == "invalid_credentials":
            report(call.context, Event.LOGIN_FAILED, call.request, email=email)
        else:
            await limits.give_back(action, address, email)
        return session
    await limits.succeed(action, address, email)
    call.request[USER_ID] = str(session.user.id)
    return Answer(session, status, SECRET)


def check_keys_at_start(context: Context) -> None:
    """Let the app stop at its start if it cannot verify access tokens."""

    @context.app.task  # type: ignore[untyped-decorator]
    async def check_keys() -> None:
        with crash_on_bug():
            context.tokens.check()
