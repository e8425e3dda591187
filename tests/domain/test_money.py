"""Amounts as texts, and the currencies that there are."""

import hashlib

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from mercuria.domain.money import (
    MAX_AMOUNT,
    MINOR_DIGITS,
    MoneyError,
    format_amount,
    is_currency,
    parse_amount,
)

currencies = st.sampled_from(sorted(MINOR_DIGITS))
BY_DIGITS = {0: "JPY", 2: "EUR", 3: "KWD", 4: "CLF"}

TEXTS = [
    ("10.50", "EUR", 1050),
    ("10.5", "EUR", 1050),
    ("10", "EUR", 1000),
    ("0.01", "EUR", 1),
    ("-0.05", "EUR", -5),
    ("0", "EUR", 0),
    ("-0", "EUR", 0),
    ("0010.50", "EUR", 1050),
    ("0" * 5000 + "1.5" + "0" * 5000, "EUR", 150),
    ("1050", "JPY", 1050),
    ("1.234", "KWD", 1234),
    ("0.0001", "CLF", 1),
    ("10.5000", "EUR", 1050),
    ("92233720368547758.07", "EUR", MAX_AMOUNT),
    ("-92233720368547758.07", "EUR", -MAX_AMOUNT),
    ("9223372036854775807", "JPY", MAX_AMOUNT),
]


@pytest.mark.parametrize(("text", "currency", "minor"), TEXTS)
def test_a_text_is_read_in_minor_units(text: str, currency: str, minor: int) -> None:
    assert parse_amount(text, currency) == minor


NO_AMOUNTS = [
    ("", "EUR", "is not an amount"),
    ("ten", "EUR", "is not an amount"),
    ("10,50", "EUR", "is not an amount"),
    ("0x10", "EUR", "is not an amount"),
    ("sNaN", "EUR", "is not an amount"),
    ("NaN", "EUR", "is not an amount"),
    ("Infinity", "EUR", "is not an amount"),
    ("-Infinity", "EUR", "is not an amount"),
    ("+10", "EUR", "is not an amount"),
    ("--10", "EUR", "is not an amount"),
    ("- 10", "EUR", "is not an amount"),
    ("-", "EUR", "is not an amount"),
    (".", "EUR", "is not an amount"),
    (".5", "EUR", "is not an amount"),
    ("5.", "EUR", "is not an amount"),
    ("1.2.3", "EUR", "is not an amount"),
    (" 10", "EUR", "is not an amount"),
    ("10 ", "EUR", "is not an amount"),
    ("10\n", "EUR", "is not an amount"),
    ("10\x00", "EUR", "is not an amount"),
    ("1_000", "EUR", "is not an amount"),
    ("1,000.00", "EUR", "is not an amount"),
    ("1e2", "EUR", "is not an amount"),
    ("1E2", "EUR", "is not an amount"),
    ("\u0661\u0660", "EUR", "is not an amount"),
    ("\uff11\uff10", "EUR", "is not an amount"),
    ("\u221210", "EUR", "is not an amount"),
    ("10.505", "EUR", "more than the 2 decimal digits of EUR"),
    ("1.5", "JPY", "more than the 0 decimal digits of JPY"),
    ("0.0005", "KWD", "more than the 3 decimal digits of KWD"),
    ("92233720368547758.08", "EUR", "at most 92233720368547758.07 EUR"),
    ("-92233720368547758.08", "EUR", "is out of range"),
    ("9223372036854775808", "JPY", "at most 9223372036854775807 JPY"),
    ("1e400", "EUR", "is not an amount"),
    ("1" * 5000, "EUR", "is out of range"),
    ("1e999999", "EUR", "is not an amount"),
    ("1e-999999999", "EUR", "is not an amount"),
    ("1e999999999999999999999", "EUR", "is not an amount"),
    ("10.500000000000000000000000000000000001", "EUR", "more than the 2 decimal digits of EUR"),
    ("92233720368547758.0700000000000000001", "EUR", "is out of range"),
    ("92233720368547758.0600000000000000001", "EUR", "more than the 2 decimal digits of EUR"),
]


@pytest.mark.parametrize(("text", "currency", "reason"), NO_AMOUNTS)
def test_what_is_no_amount_is_refused_and_said_why(text: str, currency: str, reason: str) -> None:
    with pytest.raises(MoneyError) as refusal:
        parse_amount(text, currency)
    assert reason in str(refusal.value)
    assert str(refusal.value).endswith(".")


@pytest.mark.parametrize(
    ("minor", "currency", "text"),
    [
        (1050, "EUR", "10.50"),
        (5, "EUR", "0.05"),
        (-5, "EUR", "-0.05"),
        (0, "EUR", "0.00"),
        (0, "JPY", "0"),
        (-7, "JPY", "-7"),
        (1, "KWD", "0.001"),
        (12345, "CLF", "1.2345"),
        (-MAX_AMOUNT, "EUR", "-92233720368547758.07"),
    ],
)
def test_minor_units_are_written_with_all_their_digits(minor: int, currency: str, text: str) -> None:
    assert format_amount(minor, currency) == text


@for_all(st.integers(-MAX_AMOUNT, MAX_AMOUNT), currencies)
def test_what_was_written_is_read_again(minor: int, currency: str) -> None:
    assert parse_amount(format_amount(minor, currency), currency) == minor


@pytest.mark.parametrize("currency", sorted(MINOR_DIGITS))
@pytest.mark.parametrize("minor", [0, 1, -1, 9, 10, 99, 100, 12345, MAX_AMOUNT, -MAX_AMOUNT])
def test_in_every_currency(minor: int, currency: str) -> None:
    assert parse_amount(format_amount(minor, currency), currency) == minor


@for_all(st.text() | st.from_regex(r"[-+]?[0-9]{0,40}(\.[0-9]{0,40})?([eE][-+]?[0-9]{1,12})?"), currencies)
def test_no_text_is_anything_but_an_amount_or_an_error(text: str, currency: str) -> None:
    try:
        minor = parse_amount(text, currency)
    except MoneyError:
        return
    assert abs(minor) <= MAX_AMOUNT
    assert type(minor) is int
    assert set(text) <= set("-.0123456789")


@pytest.mark.parametrize("code", ["EUR", "CZK", "JPY", "KWD", "CLF"])
def test_currencies(code: str) -> None:
    assert is_currency(code)


@pytest.mark.parametrize(
    "code", ["", "eur", "EURO", "EU", "XAU", "XXX", "XTS", "BTC", "EUR ", "\u0415UR", "€", "a\x00b"]
)
def test_what_is_no_currency(code: str) -> None:
    assert not is_currency(code)


@pytest.mark.parametrize(("digits", "currency"), BY_DIGITS.items())
def test_digits(digits: int, currency: str) -> None:
    assert MINOR_DIGITS[currency] == digits
    assert set(MINOR_DIGITS.values()) == set(BY_DIGITS)


def test_the_list_of_currencies_is_the_one_that_wallets_were_decided_with() -> None:
    """Which currencies there are is part of decisions, and the list comes from a package that follows ISO's changes.

    Two workers with two lists would decide one command in two ways. When this fails after an update: no currency
    that wallets are in may leave the list or change its digits, and all workers have to change at once.
    """
    listed = " ".join(f"{code}{digits}" for code, digits in sorted(MINOR_DIGITS.items()))
    assert len(MINOR_DIGITS) == 165
    assert (
        hashlib.sha256(listed.encode()).hexdigest()
        == "0826f60d716e22daf4392deead314cc55418ab16f0a0c01137ac9ce6e4ed8bf3"
    )
