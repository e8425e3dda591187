"""Problems stay small however much is wrong with a request, and say what they leave out."""

import json
from typing import Literal

import msgspec
import pytest
from aiohttp.test_utils import make_mocked_request
from msgspec import Struct

from mercuria.http.problems import MAX_ERRORS, FieldError, Problem
from mercuria.web.parsing import parse_body, parse_query


class Order(Struct, frozen=True, forbid_unknown_fields=True):
    """A body with a choice."""

    kind: Literal["small", "large"] = "small"
    labels: dict[str, int] = {}


def answered(outcome: object) -> dict[str, object]:
    """Return the document of a problem."""
    assert isinstance(outcome, Problem), outcome
    content = outcome.document("1")
    assert len(content) < 20_000
    document: dict[str, object] = msgspec.json.decode(content)
    return document


@pytest.mark.parametrize("count", [MAX_ERRORS, MAX_ERRORS + 1, 8000])
def test_twenty_wrong_fields_are_listed_and_the_others_are_counted(count: int) -> None:
    body = json.dumps({f"x{number}": 1 for number in range(count)}).encode()
    document = answered(parse_body(body, Order))
    errors = document["errors"]
    assert isinstance(errors, list)
    assert [error["field"] for error in errors] == [f"x{number}" for number in range(MAX_ERRORS)]
    more = f" Only 20 errors are listed; there are {count - MAX_ERRORS:,} more."
    assert str(document["detail"]).endswith(more if count > MAX_ERRORS else "There is no such field.")


def test_query_parameters_are_counted_in_the_same_way() -> None:
    query = "&".join(f"x{number}={number}" for number in range(500))
    document = answered(parse_query(make_mocked_request("GET", f"/?{query}"), Order))
    assert str(document["detail"]).endswith("there are 480 more.")
    twice = "&".join(f"x{number}=1&x{number}=2" for number in range(500))
    document = answered(parse_query(make_mocked_request("GET", f"/?{twice}"), Order))
    assert str(document["detail"]).endswith("there are 480 more.")


@pytest.mark.parametrize(
    "body",
    [
        {"kind": "x" * 60_000},
        {"x" * 60_000: 1},
        {"labels": {"x" * 60_000: "y" * 1000}},
        {"labels": {"\u0000" * 9_000: "y"}},
    ],
)
def test_what_a_client_has_sent_is_said_again_in_part_only(body: dict[str, object]) -> None:
    answered(parse_body(json.dumps(body).encode(), Order))


def test_a_long_sentence_and_a_long_name_are_cut() -> None:
    document = answered(
        Problem("invalid_field", "d" * 5000, [FieldError("f" * 5000, "invalid_field", "e" * 5000)])
    )
    assert document["errors"] == [
        {"field": "f" * 99 + "…", "code": "invalid_field", "detail": "e" * 499 + "…"}
    ]
    assert document["detail"] == "d" * 499 + "…"
