"""Comparing balances, also where operations were not done in the file's order."""

from hypothesis import given
from hypothesis import strategies as st

from mercuria.cli.load.verification import Difference, Done, Verification


def verified(done: list[Done]) -> list[Difference]:
    verification = Verification()
    for each in done:
        verification.add("a", each)
    return list(verification.differences())


@given(st.lists(st.integers(-99, 99), min_size=1, max_size=12), st.randoms())
def test_whatever_the_order_every_balance_is_as_in_the_files(changes: list[int], chance: object) -> None:
    expected, balance = {}, 0
    for place in range(len(changes)):
        expected[place] = sum(changes[: place + 1])
    order = list(range(len(changes)))
    chance.shuffle(order)  # type: ignore[attr-defined]
    done = []
    for offset, place in enumerate(order):
        balance += changes[place]
        done.append(Done(place, place + 2, changes[place], balance, offset, expected[place]))
    assert verified(done) == []
    wrong = done[0]._replace(expected=(done[0].expected or 0) + 1)
    assert [each.line for each in verified([wrong, *done[1:]])] == [wrong.line]


def test_what_others_moved_is_a_difference_from_then_on() -> None:
    done = [Done(0, 2, 500, 500, 10, 500), Done(1, 3, 50, 551, 20, 550), Done(2, 4, -1, 550, 30, 549)]
    assert verified(done) == [Difference(3, "a", 550, 551), Difference(4, "a", 549, 550)]


def test_rows_that_move_nothing_have_the_balance_of_the_row_before() -> None:
    verification = Verification()
    verification.add_nothing("a", 0, 2, 0)
    verification.add("a", Done(1, 3, 500, 500, 10, 500))
    verification.add_nothing("a", 2, 4, 500)
    verification.add_nothing("a", 3, 5, 501)
    assert list(verification.differences()) == [Difference(5, "a", 501, 500)]


def test_what_follows_a_refused_operation_is_not_compared() -> None:
    verification = Verification()
    verification.add("a", Done(0, 2, 500, 500, 10, 500))
    verification.add_refusal("a", 1)
    verification.add("a", Done(2, 4, 5, 505, 12, 305))
    verification.add("b", Done(3, 5, 5, 5, 13, 5))
    assert list(verification.differences()) == []
    assert verification.not_compared == 1


def test_an_opening_balance_that_is_taken_back_does_not_count() -> None:
    verification = Verification()
    verification.add("a", Done(0, 2, 100, 200, 10))
    verification.add("a", Done(1, 2, 50, 250, 11, 150))
    assert verification.others("a", 0) == 100
    verification.leave_out("a", 0)
    verification.add("a", Done(9, 2, -100, 150, 12))
    verification.leave_out("a", 9)
    assert list(verification.differences()) == []
