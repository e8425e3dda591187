"""The same JSON gets the same verdict over HTTP and over Kafka, whatever is in it."""

import json
from typing import Any

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st
from msgspec.structs import asdict

from mercuria.domain.parsing import Unreadable, read_command
from mercuria.http.problems import Problem
from mercuria.web.parsing import parse_body
from mercuria.web.wallets import Movement, Reason

from .story import ID, WALLET

BODIES = {"deposit": Movement, "withdraw": Movement, "freeze_wallet": Reason, "close_wallet": Reason}
"""By type of command, what a client sends over HTTP to have it made."""

NAMES = ["amount", "reference", "metadata", "reason", "x", ""]


class Members(list[tuple[str, Any]]):
    """An object of JSON as it is written: names in an order, and as often as they come."""


def written(value: Any, escape: bool = False) -> str:
    """Return JSON; with `escape`, the first character of each name is written as an escape."""
    if isinstance(value, Members):
        return "{" + ",".join(f"{name_of(name, escape)}:{written(it, escape)}" for name, it in value) + "}"
    if isinstance(value, list):
        return "[" + ",".join(written(it, escape) for it in value) + "]"
    return json.dumps(value)


def name_of(name: str, escape: bool) -> str:
    plain = json.dumps(name)
    return f'"\\u{ord(name[0]):04x}{plain[2:]}' if escape and name[:1].isalpha() else plain


def as_command(kind: str, body: str) -> bytes:
    """Return the command whose fields besides its identity are those of `body`."""
    identity = f'{{"type":"{kind}","id":"{ID}","wallet_id":"{WALLET}"'
    rest = body[1:]
    return (identity + (rest if rest == "}" else "," + rest)).encode()


texts = st.text(max_size=6) | st.sampled_from([":", "a:b", "{", '"', "\x00", "x" * 256, "\\", "é"])
names = st.sampled_from(NAMES) | texts
scalars = st.none() | st.booleans() | st.integers() | st.floats() | texts | st.just(2**63) | st.just(10**30)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.lists(st.tuples(names, inner), max_size=3).map(Members),
    max_leaves=6,
)
metadata = st.lists(st.tuples(st.sampled_from("abc") | texts, texts), max_size=3).map(Members)
members = st.one_of(
    st.tuples(st.just("amount"), st.integers(-5, 5)),
    st.tuples(st.just("reference"), texts),
    st.tuples(st.just("reason"), texts),
    st.tuples(st.just("metadata"), metadata),
    st.tuples(names.filter(lambda name: name not in ("type", "id", "wallet_id")), values),
)


@for_all(st.sampled_from(sorted(BODIES)), st.lists(members, max_size=5).map(Members), st.booleans())
def test_what_http_refuses_kafka_refuses_and_what_it_takes_means_the_same(
    kind: str, body: Members, escape: bool
) -> None:
    text = written(body, escape)
    over_http = parse_body(text.encode(), BODIES[kind])
    command = read_command(as_command(kind, text))
    if isinstance(over_http, Problem):
        assert isinstance(command, Unreadable)
        is_twice = (over_http.detail or "").endswith("stands there twice.")
        assert is_twice == command.detail.endswith("stands there twice.")
        if is_twice:
            assert (over_http.detail or "").replace("\x00", "\ufffd") == command.detail
    else:
        assert not isinstance(command, Unreadable), command
        fields = asdict(command)
        assert {name: fields[name] for name in asdict(over_http)} == asdict(over_http)


@pytest.mark.parametrize(
    "body",
    [
        '{"amount":1,"amount":1000000}',
        '{"amount":1,"amo\\u0075nt":1000000}',
        '{"amount":"1","amount":1}',
        '{"amount":1,"metadata":{"a":"1","a":"2"}}',
        '{"amount":1,"metadata":{"a":"1"},"metadata":{}}',
        '{"amount":1,"x":[{"y":{"z":1,"z":1}}]}',
    ],
)
def test_a_name_that_stands_twice_is_refused_in_the_same_words(body: str) -> None:
    problem, fault = parse_body(body.encode(), Movement), read_command(as_command("deposit", body))
    assert isinstance(problem, Problem) and isinstance(fault, Unreadable)
    assert (problem.code, fault.code) == ("malformed_body", "malformed_command")
    assert problem.detail == fault.detail
