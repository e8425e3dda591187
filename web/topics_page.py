"""The page that shows what goes over Kafka: the AsyncAPI document, as HTML.

The page is rendered completely here. It has no scripts, so any browser shows it.
"""

import re
from collections.abc import Iterable
from functools import cache
from html import escape
from typing import Any

import msgspec
from aiohttp import hdrs
from aiohttp.web import Request, Response

from mercuria.web.asyncapi import document, is_for_clients
from mercuria.web.context import Context
from mercuria.web.openapi import SCHEMAS, Json
from mercuria.web.page_view import Pages

POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
HEADERS = {hdrs.CACHE_CONTROL: "no-cache", "Content-Security-Policy": POLICY}


def pages(context: Context) -> Pages:
    """Return the page by its path, for the topics of one app."""

    async def docs_topics(_request: Request) -> Response:
        html = page(context.settings.partitions, context.settings.replication)
        return Response(text=html, content_type="text/html", headers=HEADERS)

    return {"/docs/topics": docs_topics}


@cache
def page(partitions: int, replication: int) -> str:
    """Return the page, for topics with so many partitions and replicas."""
    found = document(partitions, replication)
    info, channels = found["info"], found["channels"]
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Mercuria: topics on Kafka</title>
<link rel="icon" type="image/svg+xml" href="/console/icon.svg">
<link rel="stylesheet" href="/console/docs.css">
</head>
<body class="topics">
<nav class="between"><a href="/docs">HTTP API</a> <strong>Topics on Kafka</strong> <a href="/console">Console</a></nav>
<main>
<header>
<h1>{escape(info["title"])} <small>{escape(info["version"])}</small></h1>
{_paragraphs(info["description"])}
<p>The same, for programs: <a href="/api/v1/asyncapi.json">AsyncAPI {escape(found["asyncapi"])}</a>.</p>
</header>
<ul class="contents">
{"".join(_entry(name, channel, found) for name, channel in channels.items())}
</ul>
{"".join(_channel(name, channel, found) for name, channel in channels.items())}
<section id="schemas">
<h2>Types</h2>
{"".join(_schema(name, schema) for name, schema in sorted(found["components"]["schemas"].items()))}
</section>
</main>
</body>
</html>
"""


def _entry(name: str, channel: Json, document: Json) -> str:
    messages = [document["components"]["messages"][message] for message in channel["messages"]]
    clients = "clients send and read" if any(map(is_for_clients, messages)) else "clients read"
    return (
        f'<li><a href="#{name}"><code>{escape(channel["address"])}</code></a> '
        f'{escape(channel["summary"])} <span class="note">{clients}</span></li>\n'
    )


def _channel(name: str, channel: Json, document: Json) -> str:
    binding = channel["bindings"]["kafka"]
    config = binding["topicConfiguration"]
    kept = "for ever" if config["retention.ms"] == -1 else f"for {config['retention.ms']} ms"
    facts = {
        "Partitions": str(binding["partitions"]),
        "Replicas": str(binding["replicas"]),
        "Kept": kept,
        "Largest batch": f"{config['max.message.bytes']:,} bytes",
    }
    messages = {each: document["components"]["messages"][each] for each in channel["messages"]}
    return f"""<section id="{name}">
<h2><code>{escape(channel["address"])}</code></h2>
<p>{escape(channel["summary"])}</p>
<dl class="facts">{"".join(f"<div><dt>{key}</dt><dd>{escape(value)}</dd></div>" for key, value in facts.items())}</dl>
{"".join(_message(each, message) for each, message in messages.items())}
</section>
"""


def _message(name: str, message: Json) -> str:
    payload = message["payload"]
    who = '<span class="yes">clients may send it</span>' if is_for_clients(message) else ""
    tags = "".join(f'<span class="note">{escape(tag["name"])}</span>' for tag in message["tags"])
    key = message["bindings"]["kafka"]["key"]
    parts = [f"<p>{escape(message['summary'])}.</p>".replace("..", ".")]
    parts.append(_paragraphs(message.get("description", "")))
    parts.append(
        f"<p>Key: {_inline(key['description'])} Content type: <code>{message['contentType']}</code>.</p>"
    )
    if "$ref" in payload:
        parts.append(f"<p>Value: {_type(payload)}.</p>")
    elif "properties" in payload:
        parts.append("<p>Value:</p>" + _fields(payload))
    if "headers" in message:
        parts.append("<p>Headers:</p>" + _fields(message["headers"]))
    return (
        f'<details id="message-{name}"><summary><code>{escape(message["name"])}</code> {tags} {who}'
        f"<span>{_inline(message['summary'])}</span></summary>\n{''.join(parts)}</details>\n"
    )


def _schema(name: str, schema: Json) -> str:
    if "properties" in schema:
        content = _fields(schema)
    elif "enum" in schema:
        content = f"<p>One of {_codes(schema['enum'])}.</p>"
    else:
        content = f"<p>{_type(schema)}</p>"
    return (
        f'<article id="schema-{name}"><h3>{escape(name)}</h3>{_paragraphs(schema.get("description", ""))}'
        f"{content}</article>\n"
    )


def _fields(schema: Json) -> str:
    required = schema.get("required", [])
    rows = "".join(
        f"<tr><th scope=row><code>{escape(name)}</code></th><td>{_type(each)}</td>"
        f"<td>{'always' if name in required else _default(each)}</td>"
        f"<td>{_inline(each.get('description', ''))}</td></tr>"
        for name, each in schema["properties"].items()
    )
    return f"<table><thead><tr><th>Field<th>Type<th>There<th></tr></thead><tbody>{rows}</tbody></table>"


def _default(schema: Json) -> str:
    if schema.get("default") is None:
        return "may be missing"
    return f"else <code>{escape(msgspec.json.encode(schema['default']).decode())}</code>"


def _type(schema: Json) -> str:
    """Return the possible values of a schema, in a few words."""
    if "$ref" in schema:
        name = schema["$ref"].removeprefix(SCHEMAS)
        return f'<a href="#schema-{name}">{escape(name)}</a>'
    if "anyOf" in schema:
        return " or ".join(_type(each) for each in schema["anyOf"])
    if "const" in schema:
        return _codes([schema["const"]])
    if "enum" in schema:
        return _codes(schema["enum"])
    kind = schema.get("type")
    if kind is None:
        return "any"
    if kind == "array":
        items = schema["items"] if isinstance(schema["items"], list) else [schema["items"]]
        return f"[{', '.join(map(_type, items))}]"
    if kind == "object":
        return f"object of {_type(schema.get('additionalProperties') or {})}"
    return escape({"uuid": "UUID", "date-time": "time"}.get(schema.get("format", ""), str(kind)))


def _codes(values: Iterable[Any]) -> str:
    return ", ".join(f"<code>{escape(str(value))}</code>" for value in values)


def _paragraphs(text: str) -> str:
    return "".join(f"<p>{_inline(part)}</p>" for part in text.strip().split("\n\n") if part)


def _inline(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))
