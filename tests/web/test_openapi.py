"""The OpenAPI document says what is so, all of it and nothing else; and the page that shows it needs nobody else."""

import re
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from mercuria import web
from mercuria.config import current_settings
from mercuria.embedded.stack import Stack
from mercuria.http.problems import MEANINGS
from mercuria.tables import registration
from mercuria.web.endpoint import ENDPOINTS
from mercuria.web.links import EXAMPLES, LINKS, LOWEST, STATUSES
from mercuria.web.openapi import ELSEWHERE, SCHEMAS, document
from mercuria.worker import App
from tests.web.wire import ask

DOCUMENT = document(ENDPOINTS)
COMPONENTS = DOCUMENT["components"]
METHODS = ("get", "post", "put", "patch", "delete")


@pytest.fixture(scope="module")
def routes() -> set[tuple[str, str]]:
    """Return method and path of everything that a worker serves."""
    app = App(current_settings())
    web.register(app, registration.register(app))
    return {(route.method, route.resource.canonical) for route in app.web.web_app.router.routes()}


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Return method, path and description of all that can be called."""
    for path, item in DOCUMENT["paths"].items():
        for method in METHODS & item.keys():
            yield method.upper(), path, item[method]


BY_NAME = {operation["operationId"]: operation for _, _, operation in operations()}


def codes_of(answers: dict[str, Any]) -> set[str]:
    """Return the codes of all problems among some answers."""
    contents = [answer.get("content", {}).get("application/problem+json") for answer in answers.values()]
    return {
        code for content in contents if content for code in content["schema"]["properties"]["code"]["enum"]
    }


def schema_of(content: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a JSON body, itself and not where it is."""
    schema: dict[str, Any] = content["application/json"]["schema"]
    found: dict[str, Any] = COMPONENTS["schemas"][schema["$ref"].removeprefix(SCHEMAS)]
    return found


def test_the_document_is_valid() -> None:
    assert [error.message for error in OpenAPIV31SpecValidator(DOCUMENT).iter_errors()] == []


def test_every_route_is_in_the_document_and_everything_in_the_document_is_a_route(
    routes: set[tuple[str, str]],
) -> None:
    pages = {(method, path) for method, path in routes if path.startswith(("/docs", "/console", "/metrics"))}
    assert pages
    assert {(method, path) for method, path, _ in operations()} == {
        (method, path) for method, path in routes - pages if method != "HEAD"
    }


def test_head_is_there_where_get_is_and_nowhere_else(routes: set[tuple[str, str]]) -> None:
    assert {path for method, path in routes if method == "GET"} == {
        path for method, path in routes if method == "HEAD"
    }


def test_every_code_can_be_answered_and_every_answer_has_a_code_that_there_is() -> None:
    answered = codes_of(COMPONENTS["responses"]).union(
        *(codes_of(operation["responses"]) for operation in BY_NAME.values())
    )
    assert answered == set(MEANINGS)
    assert set(COMPONENTS["examples"]) == set(MEANINGS)
    assert set(ELSEWHERE) <= set(MEANINGS)


def test_a_problem_stands_under_its_status() -> None:
    for name, operation in BY_NAME.items():
        for status, answer in operation["responses"].items():
            for code in codes_of({status: answer}):
                assert int(status) == STATUSES.get((name, code), MEANINGS[code].status), (name, code)


def test_every_operation_says_what_it_does_in_a_part_that_is_described() -> None:
    assert len(BY_NAME) == len(list(operations()))
    tags = {tag["name"] for tag in DOCUMENT["tags"] if tag["description"]}
    for name, operation in BY_NAME.items():
        assert operation["summary"], name
        assert set(operation["tags"]) <= tags, name


def test_examples_are_what_they_are_examples_of() -> None:
    types = {
        kind.__name__: kind for each in ENDPOINTS for kind in (each.body, *each.answers.values()) if kind
    }
    assert EXAMPLES.keys() <= types.keys()
    for name, example in EXAMPLES.items():
        msgspec.convert(example, types[name])
        assert COMPONENTS["schemas"][name]["examples"] == [example]


@pytest.mark.parametrize("name", LINKS)
def test_links_lead_to_what_there_is_and_take_what_the_answer_has(name: str) -> None:
    for status, links in LINKS[name].items():
        answer = BY_NAME[name]["responses"][str(status)]
        for link in links.values():
            target = BY_NAME[link["operationId"]]
            parameters = {each["name"] for each in target.get("parameters", []) if "name" in each}
            assert link.get("parameters", {}).keys() <= parameters
            body = link.get("requestBody", {})
            assert not body or body.keys() == required_of(target)
            for expression in [*link.get("parameters", {}).values(), *body.values()]:
                assert is_there(str(expression), answer, BY_NAME[name]), expression


def required_of(operation: dict[str, Any]) -> set[str]:
    """Return the fields that a request must have."""
    return set(schema_of(operation["requestBody"]["content"])["required"])


def is_there(expression: str, answer: dict[str, Any], operation: dict[str, Any]) -> bool:
    """Return whether a runtime expression finds something."""
    source, _, pointer = expression.partition("#/")
    first = pointer.partition("/")[0]
    if source == "$response.body":
        return first in schema_of(answer["content"])["properties"]
    if source == "$request.body":
        return first in schema_of(operation["requestBody"]["content"])["properties"]
    if source.startswith("$request.path."):
        name = source.removeprefix("$request.path.")
        return any(each.get("name") == name for each in operation["parameters"])
    return not source.startswith("$")


def test_what_the_declarations_do_not_say_is_about_what_there_is() -> None:
    bodies = [schema_of(each["requestBody"]["content"]) for each in BY_NAME.values() if "requestBody" in each]
    lowest = {
        field: schema["minimum"]
        for body in bodies
        for field, schema in body["properties"].items()
        if field in LOWEST
    }
    assert lowest == LOWEST
    for name, code in STATUSES:
        assert code in codes_of(BY_NAME[name]["responses"])


async def test_a_worker_tells_the_document(live_stack: Stack) -> None:
    reply = await ask(live_stack.workers[0].port, "GET", "/api/v1/openapi.json")
    assert (reply.status, reply.headers["Content-Type"]) == (200, "application/json")
    assert reply.document == msgspec.to_builtins(DOCUMENT)


async def test_the_page_loads_nothing_from_elsewhere_and_runs_nothing_that_is_written_into_it(
    live_stack: Stack,
) -> None:
    port = live_stack.workers[0].port
    page = await ask(port, "GET", "/docs")
    assert (page.status, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    html = page.body.decode()
    assert not re.search(r"<script(?![^>]* src=)|<style|\son\w+=|https?://|style=", html)
    addresses = re.findall(r'(?:src|href)="([^"]+)"', html)
    assert len(addresses) == 8
    for address in addresses:
        plain = await ask(port, "GET", address)
        assert plain.status == 200 and plain.headers["Content-Type"], address


async def test_files_of_the_page_are_compressed_and_kept(live_stack: Stack) -> None:
    port = live_stack.workers[0].port
    html = (await ask(port, "GET", "/docs")).body.decode()
    (script,) = re.findall(r'src="(/docs/[^"]+bundle.js)"', html)
    plain = await ask(port, "GET", script)
    packed = await ask(port, "GET", script, "Accept-Encoding: br, gzip")
    assert packed.headers["Content-Encoding"] == "gzip" and len(packed.body) * 3 < len(plain.body)
    for reply in (plain, packed):
        assert "immutable" in reply.headers["Cache-Control"]
        assert reply.headers["Vary"] == "Accept-Encoding"
    for missing in (
        script.replace(".js", ".js.map"),
        script.replace("docs/", "docs/0"),
        "/docs/..%2f..%2fetc/passwd",
    ):
        assert (await ask(port, "GET", missing)).code == "not_found"
