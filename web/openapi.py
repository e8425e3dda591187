"""The OpenAPI document: what can be called, for programs.

The document is generated from the running code: the declarations of the endpoints, the types that their
requests are read with, the docstrings of their views, and the table of codes. The rest stands here: examples,
and links that lead from an answer to the next request.
"""

import inspect
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from http import HTTPStatus
from typing import Any

import msgspec
from msgspec import Struct

from mercuria import __version__
from mercuria.http.problems import CONTENT_TYPE, MEANINGS, Problem, ProblemDocument
from mercuria.web.endpoint import ANYONE, ENDPOINTS, OPERATOR, Answer, Call, Endpoint, endpoint
from mercuria.web.links import EXAMPLES, LINKS, LOWEST, STATUSES

Json = dict[str, Any]

DESCRIPTION = """\
Wallets, transactions between them, and the ledger of it all.

Amounts are integers in minor units of the currency: `1050` is 10.50 EUR. Times are RFC 3339 in UTC. Every error is a
problem (RFC 9457) with a stable `code`. `HEAD` works where `GET` does, and `OPTIONS` returns the methods of an address.
Send an `Idempotency-Key` with whatever moves money, and the same request can be sent again until there is an answer.
"""

ELSEWHERE = ("not_found", "method_not_allowed")
"""The problems of requests that match no endpoint."""
SCHEMAS = "#/components/schemas/"

BEARER: Json = {
    "type": "http",
    "scheme": "bearer",
    "bearerFormat": "JWT",
    "description": "The `access_token` that registering, logging in and refreshing give.",
}

HEADERS: Mapping[str, Json] = {
    "Allow": {"description": "The methods of the address.", "schema": {"type": "string"}},
    "Idempotent-Replayed": {
        "description": "`true` where this is the answer that the same request has got before.",
        "schema": {"const": "true"},
    },
    "Location": {
        "description": "The address of the resource that the answer describes.",
        "schema": {"type": "string", "format": "uri-reference"},
    },
    "Preference-Applied": {"description": "What of `Prefer` was done.", "schema": {"type": "string"}},
    "Retry-After": {
        "description": "After how many seconds to ask again.",
        "schema": {"type": "integer", "minimum": 0},
    },
    "WWW-Authenticate": {
        "description": "How to say who calls (RFC 6750).",
        "schema": {"type": "string"},
        "example": "Bearer",
    },
    "X-Request-Id": {
        "description": "The request's id: the client's own, where it gave one. The worker's log has it as well.",
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"},
    },
}

IDEMPOTENCY_KEY: Json = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "With the same key and the same request, nothing happens a second time, and the answer is the same. "
    "Without one, each request is a command of its own.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]([ -~]*[!-~])?$"},
}
PREFER: Json = {
    "name": "Prefer",
    "in": "header",
    "description": "How long to wait for the outcome, in seconds, or not at all (RFC 7240).",
    "schema": {"type": "string"},
    "examples": {"wait": {"value": "wait=5"}, "not at all": {"value": "respond-async"}},
}


READY: Json = {
    "type": "object",
    "properties": {
        "ready": {"type": "boolean"},
        "reasons": {"type": "array", "items": {"type": "string"}, "description": "Why it is not."},
        "parts": {
            "type": "object",
            "additionalProperties": {"type": "string"},
            "description": "How each part is that the worker needs: `ready`, or what is wrong.",
        },
        "status": {
            "enum": ["ready", "degraded", "unready"],
            "description": "`degraded`: commands are decided, and a part is not ready.",
        },
        "lag_records": {
            "type": "object",
            "additionalProperties": {"type": "integer"},
            "description": "By stage, how many records of this worker's partitions it has not worked through.",
        },
    },
    "required": ["ready", "status", "reasons"],
}
LIVE: Json = {"type": "object", "properties": {"status": {"const": "live"}}, "required": ["status"]}


def _probe(name: str, summary: str, answers: Mapping[str, str], content: Json) -> Json:
    return {
        "get": {
            "operationId": name,
            "tags": ["operations"],
            "summary": summary,
            "security": [],
            "responses": {
                status: {"description": description, "content": content}
                for status, description in answers.items()
            },
        }
    }


OPERATIONS: Json = {
    "/health/live": _probe(
        "live",
        "Check whether the worker is alive",
        {"200": "It does."},
        {"application/json": {"schema": LIVE}},
    ),
    "/health/ready": _probe(
        "ready",
        "Check whether the worker decides commands, and why not",
        {"200": "It does.", "503": "It does not."},
        {"application/json": {"schema": READY}},
    ),
}
"""The paths besides the endpoints."""


@endpoint("GET", "/api/v1/openapi.json", answers={200: dict[str, Any]}, access=ANYONE)
async def describe(_call: Call) -> Answer:
    """Return what can be called: this document."""
    return Answer(_encoded(), headers={"Cache-Control": "no-cache"})


@cache
def _encoded() -> msgspec.Raw:
    # The document is built at the first request, when all views are declared.
    return msgspec.Raw(msgspec.json.encode(document(ENDPOINTS)))


def document(endpoints: Sequence[Endpoint]) -> Json:
    """Return the document of `endpoints`, and of the other paths that a worker serves."""
    schemas = Schemas()
    paths: Json = {}
    for each in endpoints:
        paths.setdefault(each.path, {})[each.method.lower()] = operation(each, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Mercuria",
            "version": __version__,
            "summary": "Wallets and a ledger.",
            "description": DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/", "description": "Where this document is from."}],
        "tags": _tags(endpoints),
        "paths": paths | OPERATIONS,
        "components": {
            "schemas": schemas.components,
            "headers": HEADERS,
            "parameters": {"Idempotency-Key": IDEMPOTENCY_KEY, "Prefer": PREFER},
            "examples": {code: _example(code) for code in MEANINGS},
            "responses": {code: _problem_answer(MEANINGS[code].status, [code]) for code in ELSEWHERE},
            "securitySchemes": {"bearer": BEARER},
        },
    }


class Schemas:
    """The JSON Schemas of types. Schemas of named types are collected, and referenced."""

    def __init__(self) -> None:
        self.components: Json = {}
        self.of(ProblemDocument)

    def of(self, kind: Any) -> Json:
        """Return the schema of a type."""
        (schema,), components = msgspec.json.schema_components([kind], ref_template=f"{SCHEMAS}{{name}}")
        for name, component in components.items():
            _clean(component)
            _complete(name, component)
            assert self.components.setdefault(name, component) == component, f"two types are called {name}"
        return schema

    def fields_of(self, kind: type[Struct]) -> tuple[Json, list[str]]:
        """Return the schemas of a struct's fields, and which of them are required.

        The struct itself gets no name.
        """
        name = self.of(kind)["$ref"].removeprefix(SCHEMAS)
        schema = self.components.pop(name)
        return schema["properties"], schema.get("required", [])


def operation(endpoint: Endpoint, schemas: Schemas) -> Json:
    """Return the description of one endpoint."""
    summary, _, description = (inspect.getdoc(endpoint.handler) or "").partition("\n")
    found: Json = {
        "operationId": endpoint.name,
        "tags": [endpoint.tag],
        "summary": summary.rstrip("."),
        "security": [] if endpoint.access is ANYONE else [{"bearer": []}],
        "responses": _answers(endpoint, schemas) | _problem_answers(endpoint),
    }
    if endpoint.access is OPERATOR:
        description = f"For operators.\n\n{description}"
    if description.strip():
        found["description"] = description.strip()
    if parameters := [*_path(endpoint), *_query(endpoint, schemas), *_header(endpoint)]:
        found["parameters"] = parameters
    if endpoint.body is not None:
        found["requestBody"] = _body(endpoint.body, schemas)
    return found


def _path(endpoint: Endpoint) -> list[Json]:
    schema = {"type": "string", "format": "uuid"}
    return [{"name": name, "in": "path", "required": True, "schema": schema} for name in endpoint.path_names]


def _query(endpoint: Endpoint, schemas: Schemas) -> list[Json]:
    if endpoint.query is None:
        return []
    fields, required = schemas.fields_of(endpoint.query)
    return [_parameter(name, schema, name in required) for name, schema in fields.items()]


def _parameter(name: str, schema: Json, required: bool) -> Json:
    found: Json = {"name": name, "in": "query", "schema": _without_null(schema)}
    if required:
        found["required"] = True
    if "description" in schema:
        found["description"] = schema["description"]
    return found


def _without_null(schema: Json) -> Json:
    """Return the schema of a field without null, which a query cannot express."""
    kept: Json = {name: value for name, value in schema.items() if (name, value) != ("default", None)}
    choices: list[Json] = [choice for choice in kept.pop("anyOf", []) if choice != {"type": "null"}]
    if len(choices) == 1:
        return kept | choices[0]
    return kept | ({"anyOf": choices} if choices else {})


def _header(endpoint: Endpoint) -> list[Json]:
    names = ("Idempotency-Key", "Prefer") if endpoint.is_command else ()
    return [{"$ref": f"#/components/parameters/{name}"} for name in names]


def _body(kind: type[Struct], schemas: Schemas) -> Json:
    # An absent body is read as an empty object.
    required = any(field.required for field in msgspec.structs.fields(kind))
    return {"required": required, "content": {"application/json": {"schema": schemas.of(kind)}}}


def _answers(endpoint: Endpoint, schemas: Schemas) -> Json:
    return {
        str(status): _answer(endpoint, status, kind, schemas) for status, kind in endpoint.answers.items()
    }


def _answer(endpoint: Endpoint, status: int, kind: Any, schemas: Schemas) -> Json:
    names = ["X-Request-Id"]
    if endpoint.is_command:
        names += ["Idempotent-Replayed", "Preference-Applied"] + (
            ["Location"] if status in (201, 202) else []
        )
    found: Json = {"description": HTTPStatus(status).phrase, "headers": _headers(names)}
    if kind is not None:
        found["content"] = {"application/json": {"schema": schemas.of(kind)}} | {
            each: {"schema": {"type": "string"}} for each in endpoint.other_types
        }
    if links := LINKS.get(endpoint.name, {}).get(status):
        found["links"] = links
    return found


def _problem_answers(endpoint: Endpoint) -> Json:
    codes = set(endpoint.problems)
    if endpoint.path_names:
        # An id that is not a single path segment leads to another address.
        codes.add("not_found")
    if endpoint.query is not None:
        codes.add("uri_too_long")
    if endpoint.body is not None:
        codes.add("expectation_failed")
    by_status: dict[int, list[str]] = {}
    for code in sorted(codes):
        status = STATUSES.get((endpoint.name, code), MEANINGS[code].status)
        by_status.setdefault(status, []).append(code)
    return {str(status): _problem_answer(status, found) for status, found in sorted(by_status.items())}


def _problem_answer(status: int, codes: list[str]) -> Json:
    return {
        "description": "; ".join(MEANINGS[code].title for code in codes),
        "headers": _headers(["X-Request-Id", *_OF_STATUS.get(status, ())]),
        "content": {
            CONTENT_TYPE: {
                "schema": {
                    "$ref": f"{SCHEMAS}{ProblemDocument.__name__}",
                    "properties": {"status": {"const": status}, "code": {"enum": codes}},
                },
                "examples": {code: {"$ref": f"#/components/examples/{code}"} for code in codes},
            }
        },
    }


_OF_STATUS = {
    401: ("WWW-Authenticate",),
    405: ("Allow",),
    429: ("Retry-After",),
    503: ("Retry-After",),
}


def _example(code: str) -> Json:
    return {
        "summary": MEANINGS[code].title,
        "value": msgspec.json.decode(Problem(code).document("9f1c2a7b60de-1f")),
    }


def _headers(names: Iterable[str]) -> Json:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _tags(endpoints: Sequence[Endpoint]) -> list[Json]:
    """Return the parts of the API, each with the first line of its module's docstring."""
    tags = {each.tag: _first_line(each.handler.__module__) for each in endpoints}
    tags["operations"] = "How the worker is."
    return [{"name": tag, "description": description} for tag, description in sorted(tags.items())]


def _first_line(module: str) -> str:
    return (inspect.getdoc(sys.modules[module]) or "").partition("\n")[0]


def _complete(name: str, schema: Json) -> None:
    """Add details to a named type's schema that its type does not express."""
    if name in EXAMPLES:
        schema["examples"] = [EXAMPLES[name]]
    is_request = schema.get("additionalProperties") is False
    for field in schema["properties"].keys() & LOWEST.keys() if is_request else ():
        schema["properties"][field]["minimum"] = LOWEST[field]


def _clean(schema: Any) -> None:
    """Remove the indentation from docstrings that have become descriptions."""
    if isinstance(schema, dict):
        if isinstance(schema.get("description"), str):
            schema["description"] = inspect.cleandoc(schema["description"])
        for part in schema.values():
            _clean(part)
    elif isinstance(schema, list):
        for part in schema:
            _clean(part)
