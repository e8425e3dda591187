"""What a record's headers become in what follows from it."""

import pytest

from mercuria.kafka.propagation import NO_TRACE, propagated, request_id_in, span_id

PARENT = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_a_request_id_is_carried_on_and_other_headers_are_not() -> None:
    headers = [("reply-to", b"n:1"), ("request-id", b"r-1"), ("x", b"y")]
    trace = propagated(headers, "wallets", 3, 17)
    assert trace == [("request-id", b"r-1")]
    assert request_id_in(trace) == "r-1"


def test_the_span_of_what_follows_is_named_by_where_the_record_is() -> None:
    headers = [("traceparent", PARENT), ("tracestate", b"a=b")]
    (name, value), state = propagated(headers, "wallets", 3, 17)
    assert (name, state) == ("traceparent", ("tracestate", b"a=b"))
    assert value == PARENT[:36] + span_id(PARENT, "wallets", 3, 17) + b"-01"
    places = [("wallets", 3, 17), ("wallets", 3, 18), ("wallets", 4, 17), ("ledger", 3, 17)]
    assert len({propagated(headers, *place)[0] for place in places}) == 4
    assert propagated(headers, "wallets", 3, 17) == propagated(headers, "wallets", 3, 17)


def test_what_nobody_wants_to_see_is_carried_on_as_it_is() -> None:
    headers = [("traceparent", PARENT[:-2] + b"00")]
    assert propagated(headers, "wallets", 3, 17) == headers


@pytest.mark.parametrize("second", [b"r-1", b"r-2", b"", None])
def test_a_header_that_comes_twice_says_nothing(second: bytes | None) -> None:
    headers = [("request-id", b"r-1"), ("traceparent", PARENT), ("request-id", second)]
    assert [name for name, _ in propagated(headers, "wallets", 3, 17)] == ["traceparent"]
    assert request_id_in(headers) is None
    headers = [("traceparent", second), ("traceparent", PARENT), ("tracestate", b"a=b")]
    assert propagated(headers, "wallets", 3, 17) is NO_TRACE


@pytest.mark.parametrize("value", [None, b"", b"\xff", b"r" * 2**21])
@pytest.mark.parametrize("name", ["request-id", "traceparent", "tracestate", "reply-to", "", "\udce9tat"])
def test_what_a_producer_puts_into_a_header_is_never_the_end(name: str, value: bytes | None) -> None:
    headers = [(name, value)] * 3 + [("request-id", b"r-1" if name != "request-id" else value)]
    assert len(propagated(headers, "wallets", 3, 17)) <= 1
    assert request_id_in(headers) in (None, "r-1")


@pytest.mark.parametrize(
    "header",
    [
        ("request-id", b""),
        ("request-id", b"r\n"),
        ("request-id", "é".encode()),
        ("request-id", b"r" * 65),
        ("request-id", b"a b"),
        ("request-id", None),
        ("traceparent", PARENT[:-1]),
        ("traceparent", PARENT + b"-x"),
        ("traceparent", PARENT.upper()),
        ("traceparent", b"ff" + PARENT[2:]),
        ("traceparent", b"00-" + b"0" * 32 + PARENT[35:]),
        ("traceparent", PARENT[:36] + b"0" * 16 + b"-01"),
        ("tracestate", b"a=b"),
    ],
)
def test_what_is_not_well_formed_or_belongs_to_nothing_is_left_out(header: tuple[str, bytes]) -> None:
    assert propagated([header], "wallets", 3, 17) is NO_TRACE
