"""Currencies: which ones wallets can be in, and how their amounts are written."""

from iso4217 import Currency
from msgspec import Struct

from mercuria.domain.money import MINOR_DIGITS
from mercuria.web.endpoint import ANYONE, Answer, Call, endpoint

FOR_AN_HOUR = {"Cache-Control": "public, max-age=3600"}


class CurrencyBody(Struct, frozen=True):
    """A currency of ISO 4217. Amounts have `digits` decimal digits: 1050 minor units are 10.50 EUR, and 1050 JPY."""

    code: str
    name: str
    digits: int


class Currencies(Struct, frozen=True):
    """All currencies, by their code."""

    data: list[CurrencyBody]


CURRENCIES = Currencies(
    [
        CurrencyBody(code, Currency(code).currency_name, digits)
        for code, digits in sorted(MINOR_DIGITS.items())
    ]
)


@endpoint("GET", "/api/v1/currencies", access=ANYONE, answers={200: Currencies})
async def list_currencies(_call: Call) -> Answer:
    """List the currencies that wallets can be in, with the decimal digits of their amounts."""
    return Answer(CURRENCIES, headers=FOR_AN_HOUR)
