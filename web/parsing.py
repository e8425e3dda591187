"""Request parsing: from path, query, headers and body to typed values, or to a problem.

The problem lists every invalid field.
"""

from functools import cache
from typing import Any, TypeVar, cast
from uuid import UUID

import msgspec
from aiohttp.web import Request
from msgspec import Struct

from mercuria.domain.money import MAX_AMOUNT
from mercuria.domain.rejections import DETAILS, Code
from mercuria.domain.strict_json import (
    MAX_DEPTH,
    MAX_QUOTED_CHARACTERS,
    RepeatedNameError,
    check_names,
    is_too_deep,
)
from mercuria.http.problems import FieldError, Problem

S = TypeVar("S", bound=Struct)

_TOO_LARGE = {"amount": Code.AMOUNT_TOO_LARGE, "overdraft_limit": Code.OVERDRAFT_LIMIT_OUT_OF_RANGE}
"""The codes for integers that exceed 64 bits. Wallets check all other numbers."""


async def read_body(request: Request, kind: type[S]) -> S | Problem:
    """Return the request's JSON body as a struct. An absent body is read as an empty object."""
    if request.content_type != "application/json" and request.body_exists:
        return Problem("unsupported_media_type")
    return parse_body(await request.read(), kind)


def parse_body(content: bytes, kind: type[S]) -> S | Problem:
    """Return the JSON object `content` as a struct."""
    content = content or b"{}"
    try:
        body = cast(S, _decoder(kind).decode(content))
        # This check takes two microseconds. It comes after msgspec, which would silently take the last of two equal
        # names.
        check_names(content)
    except RepeatedNameError as error:
        return Problem("malformed_body", str(error))
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return _diagnose(content, kind)
    return body


def parse_query(request: Request, kind: type[S]) -> S | Problem:
    """Return the request's query parameters as a struct."""
    query = request.query
    twice = [name for name in set(query) if len(query.getall(name)) > 1]
    if twice:
        return _invalid([_error(name, Code.INVALID_FIELD, "It may be given once.") for name in twice])
    found = _convert(dict(query), kind, strict=False)
    if isinstance(found, Problem):
        return found
    # The converter accepts `null` for an absent value, unless the field is a text.
    names = {field.encode_name: field.name for field in msgspec.structs.fields(kind)}
    nulls = [name for name in query if getattr(found, names[name]) is None]
    if nulls:
        return _invalid([_error(name, Code.INVALID_FIELD, "It may be missing, not null.") for name in nulls])
    return found


def parse_id(name: str, text: str) -> UUID | Problem:
    """Return the id in a path."""
    try:
        return msgspec.convert(text, UUID)
    except msgspec.ValidationError:
        return _invalid([_error(name, Code.INVALID_FIELD, "It must be a UUID.")])


def _diagnose(content: bytes, kind: type[S]) -> S | Problem:
    """Find out what is wrong with a body. Only invalid bodies come here, so it may be slow."""
    if is_too_deep(content):
        return Problem(Code.MALFORMED_JSON, f"The body is nested deeper than {MAX_DEPTH}.")
    try:
        values = msgspec.json.decode(content)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        return Problem(Code.MALFORMED_JSON, f"The body is not JSON: {error}.")
    if not isinstance(values, dict):
        return Problem("malformed_body")
    try:
        check_names(content)
    except RepeatedNameError as error:
        return Problem("malformed_body", str(error))
    found = _convert(values, kind, strict=True)
    # The two parsers should agree; if they ever do not, the decoder has refused the body.
    return found if isinstance(found, Problem) else Problem("malformed_body")


def _convert(values: dict[str, Any], kind: type[S], *, strict: bool) -> S | Problem:
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    errors = [
        _error(name[:MAX_QUOTED_CHARACTERS], Code.UNKNOWN_FIELD, "There is no such field.")
        for name in values
        if name not in fields
    ]
    for name, field in fields.items():
        if name in values:
            errors += _faults(name, values[name], field.type, strict)
        elif field.required:
            errors.append(_error(name, Code.MISSING_FIELD, "It is missing."))
    return _invalid(errors) if errors else msgspec.convert(values, kind, strict=strict)


def _faults(name: str, value: Any, kind: Any, strict: bool) -> list[FieldError]:
    if name in _TOO_LARGE and type(value) is int and abs(value) > MAX_AMOUNT:
        return [_error(name, _TOO_LARGE[name], DETAILS[_TOO_LARGE[name]])]
    try:
        msgspec.convert(value, kind, strict=strict)
    except msgspec.ValidationError as error:
        reason, _, place = str(error).partition(" - at `$")
        return [_error(name + place.rstrip("`"), Code.INVALID_FIELD, f"{reason}.")]
    return []


def _error(field: str, code: Code, detail: str) -> FieldError:
    return FieldError(field, code, detail)


def _invalid(errors: list[FieldError]) -> Problem:
    """Return the problem for invalid fields.

    It has the code of the first field, and status 422 if the only fault is a number that is too large.
    """
    first = errors[0]
    return Problem(first.code, f"`{first.field}`: {first.detail}", errors)


@cache
def _decoder(kind: type[Any]) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind)
