"""Timestamps: points in time in queries, and the periods between two of them.

A timestamp is an RFC 3339 date and time with its offset, or a date alone, which stands for midnight UTC.
Recorded times have whole milliseconds, so a timestamp between two milliseconds stands before the later one.
"""

import re
import time
from datetime import date
from typing import Annotated, NamedTuple

from msgspec import Meta

from mercuria.domain.effective import EffectiveError, effective_at
from mercuria.domain.rejections import Code
from mercuria.http.problems import FieldError, Problem
from mercuria.postgres.paging import LAST_MS

Timestamp = Annotated[
    str,
    Meta(
        max_length=64,
        extra_json_schema={"anyOf": [{"format": "date-time"}, {"format": "date"}]},
        description="RFC 3339, with its offset; a date alone is its midnight in UTC.",
        examples=["2026-11-24T23:11:44.028Z", "2026-11-24"],
    ),
]

_FORM = re.compile(
    # A `+` that the client did not encode as %2B arrives as a space.
    r"(\d{4})-(\d\d)-(\d\d)(?:[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d+))?(?:[Zz]|([+\- ])(\d\d):(\d\d)))?",
    re.ASCII,
)
_FIRST_DAY = date(1970, 1, 1).toordinal()


class Period(NamedTuple):
    """A half-open period in milliseconds since 1970; None where the query sets no bound."""

    since_ms: int | None
    until_ms: int | None


def now_ms() -> int:
    """Return the current time."""
    return time.time_ns() // 1_000_000


def read_timestamp(name: str, text: str) -> int | Problem:
    """Return the first whole millisecond since 1970 that is not before a timestamp.

    If `text` is not a timestamp, return a problem that names the field.
    """
    return _read(name, text, after=False)


def read_timestamp_after(name: str, text: str) -> int | Problem:
    """Return the first whole millisecond that is after a timestamp."""
    return _read(name, text, after=True)


def read_period(since: str | None, until: str | None, *, first_ms: int = 0) -> Period | Problem:
    """Return the period between the fields `from` and `to` of a query, from `first_ms` on."""
    since_ms = _read("from", since, after=False, first_ms=first_ms) if since is not None else None
    until_ms = _read("to", until, after=False, first_ms=first_ms) if until is not None else None
    for found in (since_ms, until_ms):
        if isinstance(found, Problem):
            return found
    assert not isinstance(since_ms, Problem) and not isinstance(until_ms, Problem)
    if since_ms is not None and until_ms is not None and since_ms >= until_ms:
        return Problem("invalid_period")
    return Period(since_ms, until_ms)


def read_effective_at(text: str | None) -> str | Problem | None:
    """Return the effective date of a body in canonical form, or a problem; None if the body has none."""
    try:
        return None if text is None else effective_at(text)
    except EffectiveError as error:
        return Problem(
            Code.INVALID_FIELD, str(error), [FieldError("effective_at", Code.INVALID_FIELD, str(error))]
        )


def _read(name: str, text: str, *, after: bool, first_ms: int = 0) -> int | Problem:
    matched = _FORM.fullmatch(text)
    found = None if matched is None else _milliseconds(*matched.groups(), after=after)
    if found is not None:
        # Nothing is recorded before or after that range.
        return min(max(found, first_ms), LAST_MS)
    detail = "It must be a date, or a date and time with an offset, as RFC 3339 has them."
    error = FieldError(name, Code.INVALID_FIELD, detail)
    return Problem(Code.INVALID_FIELD, f"`{name}`: {detail}", [error])


def _milliseconds(
    year: str,
    month: str,
    day: str,
    hour: str | None,
    minute: str | None,
    second: str | None,
    fraction: str | None,
    sign: str | None,
    offset_hours: str | None,
    offset_minutes: str | None,
    *,
    after: bool,
) -> int | None:
    hours, minutes, seconds = int(hour or 0), int(minute or 0), int(second or 0)
    ahead_hours, ahead_minutes = int(offset_hours or 0), int(offset_minutes or 0)
    # The 60th second is a leap second.
    if hours > 23 or minutes > 59 or seconds > 60 or ahead_hours > 23 or ahead_minutes > 59:
        return None
    try:
        # RFC 3339 has a year 0.
        days = date(max(int(year), 1), int(month), int(day)).toordinal() - _FIRST_DAY
    except ValueError:
        return None
    ahead = (ahead_hours * 60 + ahead_minutes) * (-60 if sign == "-" else 60)
    whole = ((days * 24 + hours) * 60 + minutes) * 60 + seconds - ahead
    digits = fraction or ""
    milliseconds = whole * 1000 + int(digits[:3].ljust(3, "0"))
    is_between = bool(digits[3:].strip("0"))
    return milliseconds + (is_between or after)
