"""The console's files: they come with a policy that lets nothing else in, and ask the API for what there is."""

import re
from importlib.resources import files

import pytest

from mercuria.app import app
from mercuria.embedded.stack import Stack
from mercuria.web.console import console_files
from mercuria.web.endpoint import ENDPOINTS
from tests.web.wire import ask

app.discover()
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


@pytest.mark.parametrize("name", [name for name in TEXTS if name.endswith(".js")])
def test_scripts_ask_for_what_the_api_has_and_make_no_markup_from_texts(name: str) -> None:
    text = TEXTS[name].replace("${path}", "/wallets/${wallet.id}")
    asked = re.findall(r'\b(get|post|send)\((?:"(?:GET|POST)", )?[`"](/[^`"]*)[`"]', text)
    known = {(each.method.lower(), re.sub(r"\{\w+\}", "{}", each.path)) for each in ENDPOINTS}
    for method, path in asked:
        template = re.sub(r"\$\{\w+\.?\w*\}", "{}", f"/api/v1{path}")
        methods = ("get", "post") if method == "send" else (method,)
        ways = (
            [template]
            if not template.endswith("/{}") or "${action}" not in path
            else [template.removesuffix("{}") + action for action in ("freeze", "unfreeze")]
        )
        for way in ways:
            assert any((each, way) in known for each in methods), way
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|new Function|\.cookie", text
    )
    assert ("localStorage" in text) <= (name == "main.js"), (
        "the one thing kept there is whether it is light or dark"
    )
