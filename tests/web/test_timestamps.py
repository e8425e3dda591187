"""Timestamps in queries: which ones there are, and the millisecond that each stands for."""

import pytest

from mercuria.http.problems import Problem
from mercuria.web.timestamps import Period, read_period, read_timestamp, read_timestamp_after

NOON_MS = 1_764_072_000_000
"""12:00 UTC on November 25, 2025."""


@pytest.mark.parametrize(
    ("text", "from_ms", "after_ms"),
    [
        ("2025-11-25T12:00:00Z", NOON_MS, NOON_MS + 1),
        ("2025-11-25t12:00:00z", NOON_MS, NOON_MS + 1),
        ("2025-11-25T13:30:00+01:30", NOON_MS, NOON_MS + 1),
        ("2025-11-25T13:30:00 01:30", NOON_MS, NOON_MS + 1),
        ("2025-11-25T06:00:00-06:00", NOON_MS, NOON_MS + 1),
        ("2025-11-25T11:59:60Z", NOON_MS, NOON_MS + 1),
        ("2025-11-25T12:00:00.5Z", NOON_MS + 500, NOON_MS + 501),
        ("2025-11-25T12:00:00.0010000000000Z", NOON_MS + 1, NOON_MS + 2),
        # Between two milliseconds: what is recorded comes at the later one.
        ("2025-11-25T12:00:00.0010000000001Z", NOON_MS + 2, NOON_MS + 2),
        ("2025-11-25", NOON_MS - 12 * 3_600_000, NOON_MS - 12 * 3_600_000 + 1),
        # Nothing is recorded of before and after.
        ("0000-01-01T00:00:00+23:59", 0, 0),
        ("9999-12-31T23:59:59-23:59", 253_402_300_799_999, 253_402_300_799_999),
    ],
)
def test_what_is_a_timestamp(text: str, from_ms: int, after_ms: int) -> None:
    assert (read_timestamp("at", text), read_timestamp_after("at", text)) == (from_ms, after_ms)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "1764072000",
        "2025-11-25T12:00:00",
        "2025-11-25T12:00Z",
        "2025-11-25T24:00:00Z",
        "2025-11-25T12:60:00Z",
        "2025-11-25T12:00:61Z",
        "2025-11-25T12:00:00+24:00",
        "2025-11-25T12:00:00.Z",
        "2025-02-29",
        "2025-13-01",
        "٢٠٢٥-11-25",
        "2025-11-25\n",
    ],
)
def test_what_is_no_timestamp(text: str) -> None:
    found = read_timestamp("at", text)
    assert isinstance(found, Problem) and found.code == "invalid_field"
    assert [error.field for error in found.errors] == ["at"]


def test_a_period_ends_after_it_begins() -> None:
    assert read_period("2025-11-25", "2025-11-26") == Period(NOON_MS - 43_200_000, NOON_MS + 43_200_000)
    assert read_period(None, None) == Period(None, None)
    for since, until in (("2025-11-25", "2025-11-25"), ("2025-11-26", "2025-11-25")):
        found = read_period(since, until)
        assert isinstance(found, Problem) and found.code == "invalid_period"
