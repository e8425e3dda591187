"""Retries: which operations are sent again, and under which id, so that none has two effects.

A command id is decided once: sending it again returns the first answer. An operation that was refused in an
earlier load is therefore sent under the id of its next attempt. Every load goes through the attempts in the
same order. It proceeds to the next attempt only when the previous one is known to be refused; an accepted
attempt is the last. Two concurrent loads may both proceed to the same attempt: they send it under one id, and
it has one effect.
"""

from collections import defaultdict
from collections.abc import Callable
from typing import NamedTuple

from mercuria.cli.load.feed import Answer
from mercuria.cli.load.terms import Attempt
from mercuria.domain.rejections import Code


class Refused(NamedTuple):
    """An attempt, and the refusal that answered it in this load."""

    attempt: Attempt
    answer: Answer


class Attempts:
    """Follows a load's operations from attempt to attempt, in rounds.

    It calls `done` for each accepted attempt.
    """

    def __init__(self, done: Callable[[Attempt, Answer], None]) -> None:
        self._done = done
        self._next: list[Attempt] = []
        self._refused_now: list[Refused] = []
        self._refused: defaultdict[str, list[Refused]] = defaultdict(list)
        self._first_done: dict[str, int] = {}

    def hear(self, attempt: Attempt, answer: Answer) -> None:
        """Process the answer to an attempt."""
        following = next_attempt(attempt, answer)
        if following is not None:
            self._next.append(following)
        elif answer.decision.code is not None:
            self._refused_now.append(Refused(attempt, answer))
        else:
            self._done(attempt, answer)
            if not answer.is_repeat:
                account = attempt.operation.account
                self._first_done[account] = min(self._first_done.get(account, attempt.place), attempt.place)

    def next_round(self) -> list[Attempt]:
        """Return the attempts to send now, in the file's order; all earlier ones must be answered."""
        following = self._next + self._overtaken()
        self._next, self._first_done = [], {}
        for each in self._refused_now:
            self._refused[each.attempt.operation.account].append(each)
        self._refused_now = []
        return sorted(following, key=_place)

    def refusals(self) -> list[Refused]:
        """Return the operations that are still refused, in the file's order."""
        refused = (each for of_account in self._refused.values() for each in of_account)
        return sorted(refused, key=lambda each: each.attempt.place)

    def _overtaken(self) -> list[Attempt]:
        """Return new attempts for operations that were refused before a preceding operation was done.

        The operation precedes them in the file. An earlier load had refused it, and by now it is done. A
        withdrawal may depend on it.
        """
        overtaken = []
        for account, place in self._first_done.items():
            for each in self._refused.pop(account, []):
                if place < each.attempt.place and each.answer.decision.code is not Code.COMMAND_ID_REUSED:
                    overtaken.append(_following(each.attempt))
                else:
                    self._refused[account].append(each)
        return overtaken


def next_attempt(attempt: Attempt, answer: Answer) -> Attempt | None:
    """Return the attempt to send after an answer; None if the operation is done, or refused in this load."""
    code = answer.decision.code
    if code is None:
        return None
    if code is Code.COMMAND_ID_REUSED:
        # The row has changed, or a version without effective dates has loaded it. In the form of that version, the
        # operation gets its first answer, or is refused in the same way. It is not decided anew: the id has a receipt,
        # and `Openings` has ensured that the receipt outlives the load.
        operation = attempt.operation
        may_be_old = bool(operation.date) and not operation.own and attempt.number == 0
        return attempt._replace(is_old_form=True) if may_be_old and not attempt.is_old_form else None
    return _following(attempt) if answer.is_repeat else None


def _following(attempt: Attempt) -> Attempt:
    return Attempt(attempt.operation, attempt.place, attempt.number + 1)


def _place(attempt: Attempt) -> int:
    return attempt.place
