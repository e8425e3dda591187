"""Security events of requests: the action, the caller and the address (`auth.security_log`)."""

from typing import Any
from uuid import UUID

from aiohttp.web import Request

from mercuria.auth.emails import Email
from mercuria.auth.security_log import MAX_USER_AGENT_CHARACTERS, Event, emit
from mercuria.http.client_address import client_address
from mercuria.http.gate import REQUEST_ID, USER_ID
from mercuria.web.context import Context


def address_of(context: Context, request: Request) -> str:
    """Return the client's address, as trusted proxies report it."""
    forwarded: list[Any] = request.headers.getall("X-Forwarded-For", [])
    return client_address(request.remote, forwarded, context.settings.trusted_proxies)


def report(
    context: Context,
    event: Event,
    request: Request,
    *,
    email: Email | None = None,
    user_id: UUID | None = None,
    code: str | None = None,
) -> None:
    """Log a security event of a request."""
    agent = request.headers.get("User-Agent")
    resource = request.match_info.route.resource
    emit(
        event,
        request_id=request[REQUEST_ID],
        address=address_of(context, request),
        account=context.pseudonyms.of_email(email) if email is not None else None,
        user=context.pseudonyms.of_user(user_id) if user_id is not None else None,
        code=code,
        method=request.method,
        route=resource.canonical if resource is not None else None,
        user_agent=agent[:MAX_USER_AGENT_CHARACTERS] if agent is not None else None,
    )


def report_denied(context: Context, request: Request, code: str) -> None:
    """Log that a caller lacks the permission for a request."""
    user_id = request.get(USER_ID)
    report(context, Event.ACCESS_DENIED, request, user_id=UUID(user_id) if user_id else None, code=code)
