"""Endpoints: how a view of the HTTP API is declared, and what happens for each view before it is called.

    @endpoint("POST", "/api/v1/login", body=Credentials, answers={200: Session}, problems=("invalid_credentials",))
    async def login(call: Call) -> Answer | Problem: ...

First, the caller is authenticated, and the path, query, body and Idempotency-Key are parsed. Then the view is
called, and its return value becomes the answer. A declaration belongs to no app: `views` makes the views of one
app, whose `Context` each call carries. The OpenAPI document is generated from the same declarations
(`web.openapi`). A refusal is a value, `Problem`. A view may let `DatabaseUnavailable` pass: it becomes the
problem `database_unavailable`.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from enum import Enum
from typing import Any, ClassVar, Literal
from uuid import UUID

import msgspec
from aiohttp.web import Request, Response
from faust.web import View
from msgspec import Struct

from mercuria.auth.tokens import Caller
from mercuria.domain.rejections import Code
from mercuria.http.gate import USER_ID, respond
from mercuria.http.problems import Problem
from mercuria.postgres.database import DatabaseUnavailable
from mercuria.web.callers import caller_of
from mercuria.web.command_ids import CommandIds, ids_of
from mercuria.web.context import Context
from mercuria.web.parsing import parse_id, parse_query, read_body
from mercuria.web.security import report_denied

Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]

_encode = msgspec.json.Encoder().encode


class Access(Enum):
    """Who may call an endpoint."""

    ANYONE = "anyone"
    SIGNED_IN = "signed in"
    OPERATOR = "operator"


ANYONE, SIGNED_IN, OPERATOR = Access.ANYONE, Access.SIGNED_IN, Access.OPERATOR


class Stream(Struct, frozen=True):
    """An answer that is not JSON, and is sent while it is generated.

    An exception from a piece breaks it off.
    """

    content_type: str
    pieces: AsyncIterator[bytes]


class Answer(Struct, frozen=True):
    """A view's answer: the value for the JSON, or a `Stream`; the status, and headers."""

    content: Any = None
    status: int = 200
    headers: dict[str, str] = {}


class Call(Struct):
    """One request, as a view gets it. `context` is what all views of the app share."""

    context: Context
    request: Request
    path: dict[str, UUID]
    query: Any
    body: Any
    signed_in: Caller | None
    command_ids: CommandIds | None = None

    @property
    def caller(self) -> Caller:
        """The caller, if the endpoint requires one."""
        assert self.signed_in is not None, "an endpoint for anyone has no caller"
        return self.signed_in

    @property
    def ids(self) -> CommandIds:
        """The ids of the command that the call stands for, if the endpoint sends one."""
        assert self.command_ids is not None, "the endpoint is declared with is_command"
        return self.command_ids


Handler = Callable[[Call], Awaitable[Answer | Problem]]

ALWAYS = (
    "bad_request",
    "headers_too_large",
    "request_timeout",
    "internal_error",
    "overloaded",
    "shutting_down",
)
"""The problems that every endpoint can answer with."""
_OF_ACCESS: dict[Access, tuple[str, ...]] = {
    ANYONE: (),
    SIGNED_IN: ("missing_token", "invalid_token", "token_expired"),
    OPERATOR: ("missing_token", "invalid_token", "token_expired", Code.OPERATOR_REQUIRED),
}
_OF_QUERY = (Code.UNKNOWN_FIELD, Code.INVALID_FIELD)
_OF_BODY = (
    Code.MALFORMED_JSON,
    "malformed_body",
    Code.MISSING_FIELD,
    Code.UNKNOWN_FIELD,
    Code.INVALID_FIELD,
    "body_too_large",
    "unsupported_media_type",
)
_OF_COMMANDS = (
    "invalid_header",
    Code.COMMAND_ID_REUSED,
    Code.SKIPPED,
    "not_decided",
    "wallets_unavailable",
)


class Endpoint(Struct, frozen=True):
    """A declared view."""

    method: Method
    path: str
    handler: Handler
    access: Access
    query: type[Struct] | None
    body: type[Struct] | None
    answers: Mapping[int, Any]
    own_problems: tuple[str, ...]
    is_command: bool
    other_types: tuple[str, ...]

    @property
    def name(self) -> str:
        """The view's name: the id of the operation in the OpenAPI document."""
        return self.handler.__name__

    @property
    def tag(self) -> str:
        """The part of the API that the endpoint belongs to: the name of its module."""
        return self.handler.__module__.rpartition(".")[2]

    @property
    def path_names(self) -> list[str]:
        """The names of the ids in its path."""
        return [part[1:-1] for part in self.path.split("/") if part.startswith("{")]

    @property
    def problems(self) -> list[str]:
        """The codes of all problems that the endpoint can answer with."""
        codes = [*self.own_problems, *_OF_ACCESS[self.access], *ALWAYS]
        if self.path_names:
            codes.append(Code.INVALID_FIELD)
        codes += (_OF_QUERY if self.query else ()) + (_OF_BODY if self.body else ())
        codes += _OF_COMMANDS if self.is_command else ()
        return sorted({str(code) for code in codes})

    async def respond(self, context: Context, request: Request) -> Response:
        """Answer a request."""
        call = await self._read(context, request)
        outcome = call if isinstance(call, Problem) else await self._call_view(call)
        if not isinstance(outcome, Problem):
            return _response(outcome)
        if outcome.http_status == 403:
            report_denied(context, request, outcome.code)
        return respond(request, outcome)

    async def _call_view(self, call: Call) -> Answer | Problem:
        try:
            return await self.handler(call)
        except DatabaseUnavailable:
            return Problem("database_unavailable")

    async def _read(self, context: Context, request: Request) -> Call | Problem:
        caller: Any = None
        if self.access is not ANYONE:
            caller = caller_of(context.tokens, request)
            if type(caller) is Problem:
                return caller
            request[USER_ID] = str(caller.id)
            if self.access is OPERATOR and caller.role != "operator":
                return Problem(Code.OPERATOR_REQUIRED)
        path: dict[str, Any] = {}
        for name, text in request.match_info.items():
            path[name] = id_ = parse_id(name, text)
            if type(id_) is Problem:
                return id_
        query: Any = None
        if self.query is not None:
            query = parse_query(request, self.query)
            if type(query) is Problem:
                return query
        body: Any = None
        if self.body is not None:
            body = await read_body(request, self.body)
            if type(body) is Problem:
                return body
        ids: Any = None
        if self.is_command:
            ids = ids_of(request, caller.id)
            if type(ids) is Problem:
                return ids
        return Call(context, request, path, query, body, caller, ids)


def _response(answer: Any) -> Response:
    if answer.content is None:
        return Response(status=answer.status, headers=answer.headers)
    if type(answer.content) is Stream:
        headers = answer.headers | {"Content-Type": answer.content.content_type}
        return Response(body=answer.content.pieces, status=answer.status, headers=headers)
    return Response(
        body=_encode(answer.content),
        status=answer.status,
        headers=answer.headers,
        content_type="application/json",
    )


ENDPOINTS: list[Endpoint] = []
"""All declared endpoints, in the order of their declaration."""


def endpoint(
    method: Method,
    path: str,
    *,
    answers: Mapping[int, Any],
    access: Access = SIGNED_IN,
    query: type[Struct] | None = None,
    body: type[Struct] | None = None,
    problems: tuple[str, ...] = (),
    is_command: bool = False,
    other_types: tuple[str, ...] = (),
) -> Callable[[Handler], Handler]:
    """Declare the decorated function as the view of `method` and `path`, in which `{name}` stands for an id.

    Args:
        answers: by status, the type of the JSON; None for no body.
        query: the query parameters, as a struct with defaults.
        body: the type of the JSON body.
        problems: the codes of the problems that the view itself may return.
        is_command: whether the view sends a command, and so takes `Idempotency-Key` and `Prefer`.
        other_types: the media types that the answer may have instead of JSON.
    """

    def declare(handler: Handler) -> Handler:
        ENDPOINTS.append(
            Endpoint(
                method, path, handler, access, query, body, answers, tuple(problems), is_command, other_types
            )
        )
        return handler

    return declare


class EndpointView(View):
    """The Faust view of one path of an app: its endpoints by their method."""

    context: ClassVar[Context]
    endpoints: ClassVar[dict[str, Endpoint]] = {}

    def get_methods(self) -> set[str]:
        """Return the methods that the path takes."""
        methods = set(self.endpoints)
        return methods | {"HEAD"} if "GET" in methods else methods

    async def __call__(self, request: Any) -> Any:
        """Answer a request.

        Faust's own dispatch would call its sensors first, and pass the path as arguments.
        """
        method = "GET" if request.method == "HEAD" else request.method
        return await self.endpoints[method].respond(self.context, request)


def views(context: Context) -> dict[str, type[View]]:
    """Return the views of all declared endpoints for one app, by path."""
    by_path: dict[str, dict[str, Endpoint]] = {}
    for each in ENDPOINTS:
        by_path.setdefault(each.path, {})[each.method] = each
    return {
        path: type("Resource", (EndpointView,), {"context": context, "endpoints": found})
        for path, found in by_path.items()
    }
