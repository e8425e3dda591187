"""When the watchdog finds that a partition stands still although there is work."""

import pytest

from mercuria.agents.watchdog import LOOK_EVERY_S, STILL_AFTER_S, Progress, Watchdog

IDLE = Progress(decided=9, read=10, end=10, is_deciding=False)
BEHIND = Progress(decided=9, read=10, end=20, is_deciding=False)
DECIDING = Progress(decided=9, read=12, end=12, is_deciding=True)


def watch(*looks: Progress | None) -> list[int]:
    """Return what the last of several looks at partition 0 finds, one every `LOOK_EVERY_S`; None: Kafka is away."""
    watchdog = Watchdog()
    found: list[int] = []
    for number, progress in enumerate(looks):
        found = watchdog.look({} if progress is None else {0: progress}, number * LOOK_EVERY_S)
    return found


LONG = int(STILL_AFTER_S / LOOK_EVERY_S) + 2


@pytest.mark.parametrize(
    ("looks", "found"),
    [
        pytest.param([IDLE] * LONG, [], id="without work, standing still is rest"),
        pytest.param([BEHIND] * LONG, [0], id="what is not read for long stands still"),
        pytest.param([DECIDING] * LONG, [0], id="a batch that is never done stands still"),
        pytest.param([BEHIND] * 3, [], id="for a while, it may take its time"),
        pytest.param(
            [BEHIND._replace(read=10 + number) for number in range(LONG)], [], id="what is read slowly moves"
        ),
        pytest.param(
            [DECIDING._replace(decided=9 + number) for number in range(LONG)], [], id="deciding moves"
        ),
        pytest.param([*[BEHIND] * (LONG - 1), None, BEHIND], [], id="when Kafka was away, time begins anew"),
        pytest.param([*[BEHIND] * (LONG - 1), IDLE, BEHIND], [], id="after rest, time begins anew"),
    ],
)
def test_a_partition_stands_still(looks: list[Progress | None], found: list[int]) -> None:
    assert watch(*looks) == found


def test_a_worker_that_was_frozen_itself_has_not_stood_still() -> None:
    watchdog = Watchdog()
    watchdog.look({0: BEHIND}, 0)
    assert watchdog.look({0: BEHIND}, STILL_AFTER_S + 1) == []


def test_partitions_are_told_apart() -> None:
    watchdog = Watchdog()
    for number in range(LONG):
        moving = BEHIND._replace(read=10 + number)
        found = watchdog.look({0: moving, 1: BEHIND, 2: IDLE}, number * LOOK_EVERY_S)
    assert found == [1]
