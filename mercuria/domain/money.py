"""Money: integers of a currency's minor unit, within signed 64 bits."""

import re
from decimal import Decimal

from iso4217 import Currency

MAX_AMOUNT = 2**63 - 1
"""The largest amount, balance and overdraft limit, in minor units: what PostgreSQL's bigint holds."""

MINOR_DIGITS: dict[str, int] = {
    currency.code: currency.exponent for currency in Currency if currency.exponent is not None
}
"""ISO 4217: the number of decimal digits of each currency. Gold, test codes and the like have none."""

_AMOUNT = re.compile(r"-?[0-9]+(\.[0-9]+)?")


class MoneyError(ValueError):
    """A text is not an amount of the currency; the message says why."""


def is_currency(code: str) -> bool:
    """Return whether `code` is a currency that a wallet can be in."""
    return code in MINOR_DIGITS


def parse_amount(text: str, currency: str) -> int:
    """Return the minor units of a decimal text: `10.50` EUR is 1050.

    Raises:
        MoneyError: the text is not a number, has more digits than the currency, or exceeds `MAX_AMOUNT`.
    """
    digits = MINOR_DIGITS[currency]
    unit = Decimal((0, (1,), -digits))
    if not _AMOUNT.fullmatch(text):
        raise MoneyError(f"{text!r} is not an amount of money.")
    number = Decimal(text)
    if number.copy_abs() > MAX_AMOUNT * unit:
        raise MoneyError(
            f"{text!r} is out of range: at most {format_amount(MAX_AMOUNT, currency)} {currency}."
        )
    # Decimal computes with 28 digits, but compares exactly: the comparison detects what rounding removes.
    rounded = number.quantize(unit)
    if rounded != number:
        raise MoneyError(f"{text!r} has more than the {digits} decimal digits of {currency}.")
    return int(rounded.scaleb(digits))


def format_amount(minor: int, currency: str) -> str:
    """Return minor units as a decimal text: 1050 EUR is `10.50`."""
    digits = MINOR_DIGITS[currency]
    whole, rest = divmod(abs(minor), 10**digits)
    sign = "-" if minor < 0 else ""
    return f"{sign}{whole}.{rest:0{digits}}" if digits else f"{sign}{whole}"
