"""The console's files: they come with a policy that lets nothing else in, and ask the API for what there is."""

import re
from importlib.resources import files
from pathlib import Path
from uuid import uuid4

import pytest

from mercuria.embedded.stack import Stack
from mercuria.web.console import console_files
from mercuria.web.endpoint import ENDPOINTS
from tests.web.api_client import ApiClient
from tests.web.nginx import nginx_before
from tests.web.wire import ask

TEXTS = {file.name: file.read_text("utf-8") for file in files("mercuria.web").joinpath("console").iterdir()}
UNCOMPRESSED_BYTES = 100_000


def test_every_file_is_served() -> None:
    assert set(console_files()) == set(TEXTS)
    assert sum(len(text.encode()) for text in TEXTS.values()) < UNCOMPRESSED_BYTES


async def test_files_come_with_a_strict_policy_and_are_compressed(live_stack: Stack) -> None:
    port = live_stack.workers[1].port
    for path in ("/console", *(f"/console/{name}" for name in TEXTS)):
        plain = await ask(port, "GET", path)
        assert plain.status == 200
        assert (
            plain.headers["Content-Type"]
            == console_files()[path.removeprefix("/console").strip("/") or "index.html"].content_type
        )
        policy = plain.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
        assert "frame-ancestors 'none'" in policy and "require-trusted-types-for 'script'" in policy
        assert plain.headers["X-Content-Type-Options"] == "nosniff"
        packed = await ask(port, "GET", path, "Accept-Encoding: gzip")
        assert packed.headers["Content-Encoding"] == "gzip" and len(packed.body) < len(plain.body)
        known = await ask(port, "GET", path, f"If-None-Match: {plain.headers['ETag']}")
        assert (known.status, known.body) == (304, b"")
    for missing in ("console.py", "..%2fconsole.py", "index.html.gz", "%00"):
        assert (await ask(port, "GET", f"/console/{missing}")).code in ("not_found", "bad_request")


def test_the_page_has_no_scripts_or_styles_in_itself_and_names_files_that_there_are() -> None:
    html = TEXTS["index.html"]
    assert not re.search(r"<script(?![^>]* src=)|<style|\son\w+=|https?://|style=", html)
    named = re.findall(r'(?:src|href)="/console/([^"]+)"', html)
    assert set(named) <= set(TEXTS)
    for name, text in TEXTS.items():
        assert set(re.findall(r'from "\./([^"]+)"', text)) <= set(TEXTS), name


SCRIPTS = [name for name in TEXTS if name.endswith(".js")]


def asked_by(name: str) -> list[tuple[str, str]]:
    """Return what a script asks the API for: the method, and the path with `${name}` for what it puts in."""
    text = TEXTS[name].replace("${path}", "/wallets/${wallet.id}")
    asked = re.findall(r'\b(?:(get|post)\(|send\("(GET|POST)", )[`"](/[^`"]*)[`"]', text)
    return [((short or long).lower(), path) for short, long, path in asked]


async def test_nginx_serves_all_that_the_console_asks_for(
    live_stack: Stack, operator: ApiClient, tmp_path: Path
) -> None:
    with nginx_before([worker.port for worker in live_stack.workers], tmp_path) as nginx:
        operator.ports = [nginx.port]
        for page in ("/console", *(f"/console/{name}" for name in TEXTS), "/docs", "/docs/topics"):
            assert (await ask(nginx.port, "GET", page)).status == 200, page
        asked = {(method, path) for name in SCRIPTS for method, path in asked_by(name)}
        assert ("get", "/operations/readiness") in asked and len(asked) > 10
        for method, path in sorted(asked):
            way = re.sub(r"\$\{action\}", "freeze", path)
            reply = await operator.ask(method.upper(), re.sub(r"\$\{[^}]*\}", str(uuid4()), way))
            # What has been made up is not found, by a worker and under its own code.
            assert reply.status < 500, (way, reply)
            if reply.status >= 400:
                assert reply.code not in ("not_found", "method_not_allowed"), (way, reply)


def test_scripts_ask_nothing_but_the_api_and_in_one_place() -> None:
    fetches = [(name, each) for name, text in TEXTS.items() for each in re.findall(r"\bfetch\([^;]*", text)]
    assert [name for name, _ in fetches] == ["session.js"]
    assert fetches[0][1].startswith("fetch(API + path")
    assert not any(
        re.search(r"XMLHttpRequest|WebSocket|EventSource|sendBeacon", text) for text in TEXTS.values()
    )


@pytest.mark.parametrize("name", SCRIPTS)
def test_what_users_wrote_is_shown_as_such(name: str) -> None:
    lines = TEXTS[name].splitlines()
    # The reason that an operator types goes to the API, and `reasons` are the worker's own.
    texts = re.compile(r"\.(metadata|reference|reason|email)\b(?!\.value)|\bproblem\.message\b")
    shown = re.compile(r"\b(written|writtenBlock|say|who\.textContent|mark|login)\b")
    for line in lines:
        if texts.search(line) and "${problem.message}" not in line:
            assert shown.search(line), line


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_ask_for_what_the_api_has_and_make_no_markup_from_texts(name: str) -> None:
    text = TEXTS[name]
    known = {(each.method.lower(), re.sub(r"\{\w+\}", "{}", each.path)) for each in ENDPOINTS}
    for method, path in asked_by(name):
        template = re.sub(r"\$\{\w+\.?\w*\}", "{}", f"/api/v1{path}")
        ways = (
            [template]
            if not template.endswith("/{}") or "${action}" not in path
            else [template.removesuffix("{}") + action for action in ("freeze", "unfreeze")]
        )
        for way in ways:
            assert (method, way) in known, way
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|new Function|\.cookie", text
    )
    assert ("localStorage" in text) <= (name == "main.js"), (
        "the one thing kept there is whether it is light or dark"
    )
