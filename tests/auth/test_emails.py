"""E-mail addresses: which could exist, and which are the same."""

import pytest

from mercuria.adapters.emails import Email, parse_email
from mercuria.adapters.problems import Problem


@pytest.mark.parametrize(
    ("text", "shown", "key"),
    [
        ("zoe@example.com", "zoe@example.com", "zoe@example.com"),
        ("Zoe.Q@Example.COM", "Zoe.Q@example.com", "zoe.q@example.com"),
        ("  zoe@example.com\n", "zoe@example.com", "zoe@example.com"),
        ("zoe+wallets@example.com", "zoe+wallets@example.com", "zoe+wallets@example.com"),
        ("Zo\u00cb@example.com", "Zo\u00cb@example.com", "zo\u00eb@example.com"),
        ("zoe\u0308@example.com", "zo\u00eb@example.com", "zo\u00eb@example.com"),
        ("zoe@b\u00fccher.example.com", "zoe@b\u00fccher.example.com", "zoe@b\u00fccher.example.com"),
        ("zoe@xn--bcher-kva.example.com", "zoe@b\u00fccher.example.com", "zoe@b\u00fccher.example.com"),
    ],
)
def test_what_could_exist(text: str, shown: str, key: str) -> None:
    assert parse_email(text) == Email(shown, key)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "zoe",
        "@example.com",
        "zoe@",
        "zoe@example",
        "zoe@@example.com",
        "zoe@example..com",
        "zoe@-example.com",
        "z oe@example.com",
        "zoe@example.com, max@example.com",
        "Zoe <zoe@example.com>",
        '"zoe"@example.com',
        "zoe@[127.0.0.1]",
        "zoe@localhost",
        "zoe\n@example.com",
        "zoe\0@example.com",
        "zoe\u202e@example.com",
        "\ud800@example.com",
        "z" * 65 + "@example.com",
        "z@" + "x" * 300 + ".com",
    ],
)
def test_what_could_not(text: str) -> None:
    problem = parse_email(text)
    assert isinstance(problem, Problem)
    assert problem.code == "invalid_email"
    assert [error.field for error in problem.errors] == ["email"]
    assert problem.detail


def test_a_pseudonym_is_the_same_for_the_same_address_and_does_not_tell_it() -> None:
    one, same, other = (
        parse_email(text) for text in ("Zoe@example.com", "zoe@EXAMPLE.com", "max@example.com")
    )
    assert isinstance(one, Email)
    assert isinstance(same, Email)
    assert isinstance(other, Email)
    assert one.pseudonym == same.pseudonym != other.pseudonym
    assert "zoe" not in one.pseudonym
