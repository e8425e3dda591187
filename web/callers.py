"""Callers: the owner of the access token in a request."""

from aiohttp.web import Request

from mercuria.auth.tokens import Caller, Tokens
from mercuria.http.problems import Problem


def caller_of(tokens: Tokens, request: Request) -> Caller | Problem:
    """Return the caller, or the problem why the caller is unknown."""
    outcome = tokens.verify_header(request.headers.get("Authorization"))
    if isinstance(outcome, Caller):
        return outcome
    return Problem(outcome, headers={"WWW-Authenticate": outcome.challenge})


def is_operator(tokens: Tokens, request: Request) -> bool:
    """Return whether a request carries an operator's token."""
    caller = caller_of(tokens, request)
    return isinstance(caller, Caller) and caller.role == "operator"
