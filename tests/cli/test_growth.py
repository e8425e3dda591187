"""How fast something grows, as a soak tells it."""

import pytest

from tests.harness.soak.growth import Growth


def test_a_line_has_its_slope() -> None:
    growth = Growth(warm_up_s=0)
    for second in range(0, 100, 5):
        growth.take("a process", 1000.0 + second, 50 + 0.25 * second)
    assert growth.an_hour == pytest.approx(0.25 * 3600)
    assert (growth.last, growth.series, growth.measured) == (50 + 0.25 * 95, 1, 20)


def test_a_process_that_starts_again_begins_anew_and_its_warm_up_does_not_count() -> None:
    growth = Growth(warm_up_s=30)
    for start_s, base, slope in ((0, 100.0, 2.0), (500, 40.0, 2.0), (900, 70.0, 2.0)):
        for second in range(0, 200, 5):
            # It fills its caches first, which is no growth.
            growth.take(start_s, start_s + second, base + slope * second + 1000 * min(second, 25))
    assert growth.an_hour == pytest.approx(2.0 * 3600)
    assert growth.series == 3


def test_what_was_measured_once_says_nothing() -> None:
    growth = Growth(warm_up_s=10)
    assert growth.an_hour is None
    for process in range(3):
        for second in (0, 5, 10):
            growth.take(process, 100.0 * process + second, 7)
    assert growth.an_hour is None and growth.measured == 3
