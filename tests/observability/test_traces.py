"""What a worker tells an OpenTelemetry collector: a transfer's way, as one trace."""

from typing import Any
from uuid import uuid4

from opentelemetry.proto.trace.v1.trace_pb2 import Span

from mercuria.topics import LEDGER_EVENTS, TRANSACTION_EVENTS, WALLET_COMMANDS, WALLET_EVENTS
from tests.observability.conftest import TracedStack, funded, registered
from tests.web.api_client import until

DECIDE, PROJECT = f"decide {WALLET_COMMANDS}", f"project {WALLET_EVENTS}"
ENTER, COUNT = f"project {TRANSACTION_EVENTS}", f"project {LEDGER_EVENTS}"


def attributes(span: Span) -> dict[str, Any]:
    """Return the attributes of a span."""
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in span.attributes}


async def transfer(traced: TracedStack, *fields: str) -> str:
    """Move money, with further headers, and return the id of the transaction."""
    session = await registered(traced, f"{uuid4().hex}@example.org")
    token = session["access_token"]
    body = {
        "from_wallet_id": await funded(traced, token, 100),
        "to_wallet_id": await funded(traced, token, 1),
        "amount": 7,
    }
    reply = await traced.ask("POST", "/transactions", body, *fields, token=token)
    assert reply.status == 201, reply
    return str(reply.document["id"])


async def test_a_transfer_is_one_trace_from_the_request_to_the_ledger(traced: TracedStack) -> None:
    trace_id, caller = uuid4().hex, "00f067aa0ba902b7"
    own = f"traceparent: 00-{trace_id}-{caller}-01", "tracestate: vendor=x", "X-Request-Id: traced-1"
    transaction_id = await transfer(traced, *own)

    async def spans() -> list[Span]:
        return traced.collector.of_trace(trace_id)

    found = await until(spans, lambda seen: len(seen) >= 8)
    by_id = {span.span_id: span for span in found}
    assert len(by_id) == len(found) == 8

    def way(span: Span) -> list[str]:
        """Return the names of a span and of those above it."""
        parent = by_id.get(span.parent_span_id)
        return [span.name, *(way(parent) if parent is not None else [span.parent_span_id.hex()])]

    http = ["POST /api/v1/transactions", caller]
    debit = [DECIDE, *http]
    credit = [DECIDE, *debit]
    entered = [ENTER, PROJECT, *credit]
    assert sorted(map(way, found)) == sorted(
        [http, debit, credit, [PROJECT, *debit], [PROJECT, *credit], entered, *[[COUNT, *entered]] * 2]
    )
    for span in found:
        facts = attributes(span)
        assert facts["mercuria.request_id"] == "traced-1"
        assert span.trace_state == "vendor=x"
        assert span.start_time_unix_nano < span.end_time_unix_nano
        if span.name == http[0]:
            assert span.kind == Span.SPAN_KIND_SERVER
            assert (facts["http.route"], facts["http.response.status_code"]) == ("/api/v1/transactions", 201)
            continue
        assert span.kind == Span.SPAN_KIND_CONSUMER
        assert [link.span_id for link in span.links] == [span.parent_span_id]
        assert facts["mercuria.command_id"] == facts["mercuria.transaction_id"] == transaction_id
        assert facts["messaging.system"] == "kafka" and facts["messaging.operation.type"] == "process"
        assert span.name == f"{facts['messaging.operation.name']} {facts['messaging.destination.name']}"
        assert facts["messaging.kafka.offset"] >= 0 and int(facts["messaging.destination.partition.id"]) < 8
    resource = traced.collector.resources[-1]
    assert resource["service.name"] == "mercuria" and resource["service.instance.id"] == "worker-1"
    assert resource["deployment.environment.name"] == "test"


async def test_who_names_no_trace_gets_a_new_one(traced: TracedStack) -> None:
    transaction_id = await transfer(traced)

    async def entered() -> list[Span]:
        spans = [span for span in traced.collector.spans if span.name == ENTER]
        return [span for span in spans if attributes(span)["mercuria.transaction_id"] == transaction_id]

    (span,) = await until(entered, bool)
    (root,) = [each for each in traced.collector.of_trace(span.trace_id.hex()) if not each.parent_span_id]
    assert root.name == "POST /api/v1/transactions"


async def test_what_is_not_sampled_has_no_spans(traced: TracedStack) -> None:
    trace_id = uuid4().hex
    await transfer(traced, f"traceparent: 00-{trace_id}-00f067aa0ba902b7-00", "X-Request-Id: unsampled-1")

    async def in_ledger() -> list[dict[str, Any]]:
        return traced.lines(request_id="unsampled-1", reader="ledger")

    await until(in_ledger, bool)
    # What comes later is sent later.
    await test_who_names_no_trace_gets_a_new_one(traced)
    assert traced.collector.of_trace(trace_id) == []
    assert not [
        span for span in traced.collector.spans if span.name.startswith(("GET /health", "GET /metrics"))
    ]
