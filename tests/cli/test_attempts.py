"""Loading again: what was refused is sent under new ids, and nothing counts twice, whatever was refused and when."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from mercuria.cli.load.attempts import Attempts, next_attempt
from mercuria.cli.load.feed import Answer, Decision
from mercuria.cli.load.statement import Operation
from mercuria.cli.load.terms import Attempt, Terms
from mercuria.domain.commands import ClientCommand, Position
from mercuria.domain.events import BalanceUpdated, CommandRejected, Event
from mercuria.domain.rejections import Code
from mercuria.domain.wallet import Wallet, decide, evolve

TERMS = Terms("CZK", 0)
OPERATION = Operation(2, "695247", "1993-01-01", "2378", "deposit", 700, 700, "")


def refusal(code: Code, is_repeat: bool = False) -> Answer:
    return Answer(Decision(7, code=code), 0, is_repeat)


@pytest.mark.parametrize(
    ("attempt", "answer", "following"),
    [
        (Attempt(OPERATION, 3), Answer(Decision(7), 0, False), None),
        (Attempt(OPERATION, 3), refusal(Code.WALLET_FROZEN), None),
        (Attempt(OPERATION, 3), refusal(Code.WALLET_FROZEN, is_repeat=True), Attempt(OPERATION, 3, 1)),
        (Attempt(OPERATION, 3, 1), refusal(Code.WALLET_FROZEN, is_repeat=True), Attempt(OPERATION, 3, 2)),
        (Attempt(OPERATION, 3), refusal(Code.COMMAND_ID_REUSED), Attempt(OPERATION, 3, 0, is_old_form=True)),
        (Attempt(OPERATION, 3, 0, is_old_form=True), refusal(Code.COMMAND_ID_REUSED), None),
        (
            Attempt(OPERATION, 3, 0, is_old_form=True),
            refusal(Code.WALLET_FROZEN, is_repeat=True),
            Attempt(OPERATION, 3, 1),
        ),
        (Attempt(OPERATION._replace(date=""), 3), refusal(Code.COMMAND_ID_REUSED), None),
    ],
)
def test_what_follows_on_an_answer(attempt: Attempt, answer: Answer, following: Attempt | None) -> None:
    assert next_attempt(attempt, answer) == following


def test_the_first_attempt_has_the_id_that_it_has_always_had() -> None:
    """With another id, what earlier versions loaded would count twice."""
    wallet_id = TERMS.wallet_id("2378")
    first = TERMS.command(Attempt(OPERATION, 0), wallet_id)
    assert str(first.id) == "3ddd9fb9-3090-5bb2-8f21-ac09bea832ab"
    old = TERMS.command(Attempt(OPERATION, 0, is_old_form=True), wallet_id)
    assert structs.replace(first, effective_at=None) == old
    assert first.effective_at == "1993-01-01T00:00:00.000Z"
    ids = {TERMS.command(Attempt(OPERATION, 0, number), wallet_id).id for number in range(9)}
    assert len(ids) == 9


class World:
    """One wallet with its receipts, and loads that take turns at it."""

    def __init__(self) -> None:
        self.offset = 0
        self.wallet: Wallet | None = None
        self.receipts: dict[object, Event] = {}
        self.effects: list[str] = []
        opening = TERMS.opening("a")
        self.wallet = evolve(None, decide(opening, None, Position(0, 0, 0)), 0)

    def answer(self, command: ClientCommand) -> Answer:
        self.offset += 1
        event = self.receipts.get(command.id)
        if event is None:
            event = decide(command, self.wallet, Position(0, self.offset, 0))
            self.receipts[command.id] = event
            self.wallet = evolve(self.wallet, event, 0)
            if type(event) is BalanceUpdated:
                self.effects.append(event.reference or "")
        if type(event) is CommandRejected:
            return Answer(Decision(event.offset, code=event.code), 0, event.offset < self.offset)
        assert type(event) is BalanceUpdated
        return Answer(Decision(event.offset, balance=event.balance), 0, event.offset < self.offset)

    def set_status(self, is_frozen: bool) -> None:
        assert self.wallet is not None
        self.wallet = structs.replace(self.wallet, status="frozen" if is_frozen else "open")


def load(world: World, operations: list[Operation]) -> Attempts:
    """Load operations to the end."""
    return list(begin(world, operations))[-1]


def begin(world: World, operations: list[Operation]) -> Iterator[Attempts]:
    """Load operations; each step is one command."""
    attempts = Attempts(lambda _attempt, _answer: None)
    wallet_id = TERMS.wallet_id("a")
    following = [Attempt(operation, place) for place, operation in enumerate(operations)]
    while following:
        for attempt in following:
            attempts.hear(attempt, world.answer(TERMS.command(attempt, wallet_id)))
            yield attempts
        following = attempts.next_round()


steps = st.lists(st.sampled_from(["a", "b", "freeze", "unfreeze"]), max_size=60)
changes = st.lists(st.integers(-50, 50).filter(bool), min_size=1, max_size=8)


@given(changes, steps)
def test_two_loads_at_once_give_each_operation_one_effect_and_the_last_load_does_all_that_can_be_done(
    changes: list[int], steps: list[str]
) -> None:
    operations = [
        Operation(line, f"t{line}", "", "a", "deposit" if each > 0 else "withdrawal", abs(each), None, "")
        for line, each in enumerate(changes)
    ]
    world = World()
    loads = {name: begin(world, operations) for name in "ab"}
    for step in steps:
        if step in loads:
            if next(loads[step], None) is None:
                loads[step] = begin(world, operations)
        else:
            world.set_status(step == "freeze")
    world.set_status(False)
    for rest in loads.values():
        for _ in rest:
            pass
    last = load(world, operations)
    assert len(world.effects) == len(set(world.effects))
    refused = {each.attempt.operation.transaction_id for each in last.refusals()}
    assert set(world.effects) | refused == {each.transaction_id for each in operations}
    assert {each.answer.decision.code for each in last.refusals()} <= {Code.INSUFFICIENT_FUNDS}


def test_what_leans_on_a_row_that_was_refused_before_is_tried_after_it() -> None:
    deposit = Operation(2, "t1", "", "a", "deposit", 500, None, "")
    withdrawal = Operation(3, "t2", "", "a", "withdrawal", 400, None, "")
    world = World()
    world.set_status(True)
    load(world, [deposit])
    world.set_status(False)
    assert load(world, [deposit, withdrawal]).refusals() == []
    assert world.effects == ["t1", "t2"]


def test_a_withdrawal_is_not_tried_again_because_of_what_comes_after_it() -> None:
    withdrawal = Operation(2, "t1", "", "a", "withdrawal", 400, None, "")
    deposit = Operation(3, "t2", "", "a", "deposit", 500, None, "")
    world = World()
    refusals = load(world, [withdrawal, deposit]).refusals()
    assert [each.attempt.operation for each in refusals] == [withdrawal]
