"""E-mail addresses: which could exist, and which are the same."""

import pytest

from mercuria.auth.emails import Email, parse_email
from mercuria.http.problems import Problem


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
    ("one", "other"),
    [
        ("stra\u00dfe@example.com", "strasse@example.com"),
        ("zoe@stra\u00dfe.example.com", "zoe@strasse.example.com"),
        ("\ufb01nn@example.com", "finn@example.com"),
        ("\u0131van@example.com", "ivan@example.com"),
        ("\u0130van@example.com", "ivan@example.com"),
        ("\u017fam@example.com", "sam@example.com"),
        ("\uff5a\uff4f\uff45@example.com", "zoe@example.com"),
        ("\u03bd\u03b9\u03ba\u03bf\u03c2@example.com", "\u03bd\u03b9\u03ba\u03bf\u03c3@example.com"),
        ("zoe@\u03bd\u03b9\u03ba\u03bf\u03c2.example.com", "zoe@\u03bd\u03b9\u03ba\u03bf\u03c3.example.com"),
        ("zo\u00eb@example.com", "zoe@example.com"),
    ],
)
def test_letters_that_unicode_folds_into_others_make_another_address(one: str, other: str) -> None:
    assert key(one) != key(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Zoe@Example.com", "zOE@eXAMPLE.COM"),
        ("ZO\u00cb@example.com", "zoe\u0308@example.com"),
        ("\u1e9eander@example.com", "\u00dfander@example.com"),
        # The Kelvin sign is the letter K by Unicode's own canonical form, and so is the sign for \u00e5ngstr\u00f6m.
        ("\u212aelvin@example.com", "kelvin@example.com"),
        ("\u212bsa@example.com", "\u00e5sa@example.com"),
        ("\u039d\u0399\u039a\u039f\u03a3@example.com", "\u03bd\u03b9\u03ba\u03bf\u03c2@example.com"),
        ("zoe@B\u00dcCHER.example.com", "zoe@xn--bcher-kva.example.com"),
        ("zoe@XN--STRAE-OQA.example.com", "zoe@stra\u00dfe.example.com"),
        # A domain, unlike what stands before it, is read in its compatibility form (UTS 46).
        ("zoe@\ufb01nn.example.com", "zoe@finn.example.com"),
        ("zoe@\uff45xample.com", "zoe@example.com"),
    ],
)
def test_large_and_small_letters_and_forms_of_one_letter_make_the_same_address(one: str, other: str) -> None:
    assert key(one) == key(other)


def key(text: str) -> str:
    """Return what stands for an address that could exist."""
    email = parse_email(text)
    assert isinstance(email, Email), email
    return email.key


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
