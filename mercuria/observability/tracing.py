"""Tracing: spans of requests and of records, which OpenTelemetry sends by OTLP. Without an exporter, there are none.

Names and attributes follow OpenTelemetry (https://opentelemetry.io/docs/specs/semconv/). The span of a record
has an id derived from the record (`kafka.propagation`), so that later records can name it as their parent
before the span exists.
"""

import asyncio
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from mercuria import __version__
from mercuria.config import Settings

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer

FLUSH_S = 2.0
"""How long a stopping worker waits for its remaining spans to be sent."""

METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
"""The methods that name a span. Other methods become "HTTP", because clients choose their names."""

_NAMES = ("traceparent", "tracestate")


class Tracing:
    """The spans of this worker. If tracing is off, no span is created and no exporter is loaded."""

    def __init__(self) -> None:
        self.tracer: Tracer | None = None
        """The tracer that creates spans; None if tracing is off."""
        self._provider: Any = None
        self._ids: Any = None
        self._propagator: Any = None

    def start(self, settings: Settings) -> None:
        """Start tracing if an exporter is configured. OpenTelemetry reads its own OTEL_* variables."""
        if not settings.traces:
            return
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        own = {
            "service.name": "mercuria",
            "service.version": __version__,
            "service.instance.id": settings.worker,
        }
        resource = Resource.create(own).merge(OTELResourceDetector().detect())
        self._ids = _ids()
        self._provider = TracerProvider(resource=resource, id_generator=self._ids, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._propagator = TraceContextTextMapPropagator()
        self.tracer = self._provider.get_tracer("mercuria", __version__)

    async def stop(self) -> None:
        """Send the remaining spans, within a short timeout."""
        if self._provider is not None:
            self.tracer = None
            await asyncio.to_thread(self._provider.force_flush, int(FLUSH_S * 1000))

    # Requests.

    def begin_request(self, method: str, headers: Mapping[str, str]) -> "Span | None":
        """Begin the span of an HTTP request, in the trace that its headers name or in a new one."""
        from opentelemetry.trace import SpanKind

        if self.tracer is None:
            return None
        carrier = {name: headers[name] for name in _NAMES if name in headers}
        return self.tracer.start_span(
            method if method in METHODS else "HTTP", self._propagator.extract(carrier), SpanKind.SERVER
        )

    def end_request(
        self, span: "Span", method: str, route: str | None, status: int, fields: Mapping[str, Any]
    ) -> None:
        """End the span of a request with the response's status."""
        from opentelemetry.trace import Status, StatusCode

        if span.is_recording():
            known = method if method in METHODS else "_OTHER"
            span.set_attribute("http.request.method", known)
            span.set_attribute("http.response.status_code", status)
            if route is not None:
                span.update_name(f"{'HTTP' if known == '_OTHER' else known} {route}")
                span.set_attribute("http.route", route)
            span.set_attributes({name: value for name, value in fields.items() if value is not None})
            if status >= 500:
                span.set_attribute("error.type", str(status))
                span.set_status(Status(StatusCode.ERROR))
        span.end()

    def headers_of(self, span: "Span") -> list[tuple[str, bytes]]:
        """Return the headers of a record that comes from a span; none if the span is not recorded."""
        from opentelemetry.trace import set_span_in_context

        if not span.is_recording():
            return []
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, set_span_in_context(span))
        return [(name, value.encode()) for name, value in carrier.items()]

    # Records.

    def add_record(
        self,
        name: str,
        span_id: bytes,
        headers: Iterable[tuple[str, bytes]],
        took_s: float,
        attributes: Mapping[str, str | int],
    ) -> None:
        """Add the span of a record that was just processed, which took `took_s`.

        Args:
            span_id: the span's id, in hexadecimal digits.
            headers: the record's headers. The span that they name is the parent, and is linked as well.
        """
        from opentelemetry.trace import Link, SpanKind, get_current_span

        if self.tracer is None:
            return
        carrier = {each: value.decode("ascii") for each, value in headers if each in _NAMES}
        context = self._propagator.extract(carrier)
        ended_ns = time.time_ns()
        self._ids.next_span_id = int(span_id, 16)
        span = self.tracer.start_span(
            name,
            context,
            SpanKind.CONSUMER,
            attributes,
            [Link(get_current_span(context).get_span_context())],
            ended_ns - int(took_s * 1e9),
        )
        span.end(ended_ns)


def _ids() -> Any:
    from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

    class Ids(RandomIdGenerator):
        """Random ids, unless the next id is set."""

        next_span_id: int | None = None

        def generate_span_id(self) -> int:
            given, self.next_span_id = self.next_span_id, None
            return super().generate_span_id() if given is None else given

    return Ids()


tracing = Tracing()
"""The spans of this process."""
