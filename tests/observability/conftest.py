"""What these tests share: a worker that logs all that it can, as JSON, while people use it."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import msgspec
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from mercuria.embedded.stack import Stack
from tests.conftest import MANY_PEOPLE
from tests.harness.stacks import fresh_stack
from tests.web.wire import Reply, ask

API = "/api/v1"
PASSWORD = "correct-Horse 7 battery"
COLLECTOR_TOKEN = "the-token-of-the-collector"


class Collector:
    """Takes spans, as an OpenTelemetry collector does by OTLP over HTTP."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.resources: list[dict[str, str]] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                assert self.path == "/v1/traces" and self.headers["Content-Type"] == "application/x-protobuf"
                collector.take(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def take(self, request: ExportTraceServiceRequest) -> None:
        """Take what an exporter sends."""
        for each in request.resource_spans:
            attributes = each.resource.attributes
            self.resources.append({pair.key: pair.value.string_value for pair in attributes})
            self.spans += [span for scope in each.scope_spans for span in scope.spans]

    def of_trace(self, trace_id: str) -> list[Span]:
        """Return the spans of a trace, each as it came, in the order of their beginning."""
        found = [span for span in self.spans if span.trace_id.hex() == trace_id]
        return sorted(found, key=lambda span: span.start_time_unix_nano)

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


@dataclass
class TracedStack:
    """A stack whose worker logs all that it can, and sends spans."""

    stack: Stack
    collector: Collector

    async def ask(self, method: str, path: str, body: Any = None, *fields: str, token: str = "") -> Reply:
        """Ask the worker. `fields` are further headers."""
        headers = [*fields, *([f"Authorization: Bearer {token}"] if token else [])]
        content = None
        if body is not None:
            headers.append("Content-Type: application/json")
            content = msgspec.json.encode(body)
        return await ask(self.stack.workers[0].port, method, API + path, *headers, body=content)

    @property
    def log(self) -> str:
        """What the worker has logged so far."""
        return self.stack.workers[0].log.path.read_text("utf-8")

    def lines(self, **fields: Any) -> list[dict[str, Any]]:
        """Return the lines that have these fields. The last line may not be complete yet."""
        lines = [
            msgspec.json.decode(line) for line in self.log.splitlines(keepends=True) if line.endswith("\n")
        ]
        return [line for line in lines if fields.items() <= line.items()]


@pytest.fixture(scope="package")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TracedStack]:
    """Return the stack."""
    with Collector() as collector:
        settings = MANY_PEOPLE | {
            "MERCURIA_LOG_LEVEL": "debug",
            "MERCURIA_LOG_FORMAT": "json",
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OTEL_EXPORTER_OTLP_HEADERS": f"authorization=Bearer {COLLECTOR_TOKEN}",
            "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
            "OTEL_BSP_SCHEDULE_DELAY": "200",
        }
        with fresh_stack(tmp_path_factory.mktemp("traced"), 1, print, settings) as stack:
            yield TracedStack(stack, collector)


async def registered(traced: TracedStack, email: str) -> dict[str, Any]:
    """Return the session of somebody new."""
    reply = await traced.ask("POST", "/register", {"email": email, "password": PASSWORD})
    assert reply.status == 201, reply
    return reply.document


async def funded(traced: TracedStack, token: str, amount: int) -> str:
    """Return the id of a new wallet with money in it."""
    opened = await traced.ask("POST", "/wallets", {"currency": "EUR"}, token=token)
    assert opened.status == 201, opened
    path = f"/wallets/{opened.document['id']}/deposit"
    assert (await traced.ask("POST", path, {"amount": amount}, token=token)).status == 201
    return str(opened.document["id"])
