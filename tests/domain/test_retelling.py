"""A command that is sent twice gets its first answer, byte for byte: from the kept outcome, and from nothing else."""

import msgspec
import pytest
from msgspec.structs import replace

from mercuria.domain.commands import Credit, Decidable, Refund
from mercuria.domain.events import BalanceUpdated, Status
from mercuria.domain.parsing import read_command
from mercuria.domain.rejections import CODES, NUMBERS
from mercuria.domain.wallet import Outcome, Wallet, build_event, decide, evaluate

from .faults import Situation, acceptable, single_faults
from .story import MAX, NOW, STRANGER, a_wallet, encoded

SITUATIONS: list[tuple[str, Situation]] = [
    *((f"{kind}, accepted", situation) for kind, situation in acceptable().items()),
    *((f"{kind}, {code}", situation) for kind, code, situation in single_faults()),
]

LATER: dict[str, dict[str, object]] = {
    "when it was emptied": {"balance": 0, "version": 9},
    "when it was filled": {"balance": MAX, "version": MAX, "sent": 0},
    "when it was frozen": {"status": "frozen", "version": 9},
    "when it was closed": {"status": "closed", "balance": 0, "version": 9},
    "when its limit was changed": {"overdraft_limit": 77, "version": 9, "earlier_limits": ((6, 5),)},
}
"""What may have become of the wallet until its command comes again."""

NOTES: dict[str, object] = {
    "reference": "rent",
    "metadata": {"b": "1", "a": "2"},
    "reason": "a court order",
    "effective_at": "2021-03-04T00:00:00.000Z",
}


def with_notes(command: Decidable) -> Decidable:
    return replace(command, **{name: NOTES[name] for name in NOTES if name in command.__struct_fields__})


def then(wallet: Wallet | None, fields: dict[str, object]) -> Wallet:
    """Return the wallet as it is later; where there was none, somebody else has opened it."""
    return replace(wallet or a_wallet(owner_id=STRANGER, currency="CZK"), **fields)


@pytest.mark.parametrize("later", LATER)
@pytest.mark.parametrize("situation", [pytest.param(it, id=name) for name, it in SITUATIONS])
def test_the_first_event_is_told_again(situation: Situation, later: str) -> None:
    command, wallet = with_notes(situation[0]), situation[1]
    first = decide(command, wallet, NOW)
    outcome = evaluate(command, wallet)
    assert encoded(build_event(command, then(wallet, LATER[later]), outcome, NOW)) == encoded(first)


@pytest.mark.parametrize("situation", [pytest.param(it, id=name) for name, it in SITUATIONS])
def test_an_outcome_survives_as_four_numbers(situation: Situation) -> None:
    command, wallet = situation
    outcome = evaluate(command, wallet)
    statuses: tuple[Status, ...] = ("open", "frozen", "closed")
    kept = (
        outcome.balance,
        outcome.version,
        statuses.index(outcome.status),
        NUMBERS[outcome.code] if outcome.code else 0,
    )
    assert all(-(2**63) <= number < 2**63 for number in kept)
    assert Outcome(kept[0], kept[1], statuses[kept[2]], CODES.get(kept[3])) == outcome


@pytest.mark.parametrize("situation", [pytest.param(it, id=name) for name, it in acceptable().items()])
def test_what_was_read_again_is_told_the_same(situation: Situation) -> None:
    command, wallet = with_notes(situation[0]), situation[1]
    again = read_command(encoded(command))
    assert isinstance(again, Decidable)
    assert encoded(decide(again, wallet, NOW)) == encoded(decide(command, wallet, NOW))


@pytest.mark.parametrize("situation", [pytest.param(it, id=name) for name, it in SITUATIONS])
def test_a_refusal_is_told_without_the_wallet(situation: Situation) -> None:
    command, wallet = situation
    outcome = evaluate(command, wallet)
    if outcome.code is not None:
        assert encoded(build_event(command, None, outcome, NOW)) == encoded(decide(command, wallet, NOW))


def test_where_and_when_belong_to_the_telling() -> None:
    """A retry comes at another offset; the caller passes the first one's position, which is kept with the outcome."""
    command, wallet = acceptable()["deposit"]
    elsewhere = replace(NOW, offset=NOW.offset + 1)
    event = decide(command, wallet, elsewhere)
    assert event.offset == elsewhere.offset
    assert encoded(replace(event, offset=NOW.offset, initiated=NOW)) == encoded(decide(command, wallet, NOW))


@pytest.mark.parametrize("situation", [pytest.param(it, id=name) for name, it in acceptable().items()])
def test_the_time_of_a_decision_is_only_in_where_a_transaction_began(situation: Situation) -> None:
    """The envelope carries it; what a retry is told is kept with the receipt."""
    command, wallet = situation
    earlier = decide(command, wallet, replace(NOW, time_ms=0))
    if isinstance(earlier, BalanceUpdated) and not isinstance(command, Credit | Refund):
        earlier = replace(earlier, initiated=NOW)
    assert encoded(earlier) == encoded(decide(command, wallet, NOW))


def test_two_orders_of_metadata_give_different_bytes() -> None:
    """So a wallet decides in one order, whatever order a command came in (`in_order`)."""
    one, two = (
        with_notes(acceptable()["deposit"][0]),
        replace(with_notes(acceptable()["deposit"][0]), metadata={"a": "2", "b": "1"}),
    )
    assert one == two
    assert msgspec.json.encode(one) != msgspec.json.encode(two)
    assert encoded(decide(one, a_wallet(), NOW)) != encoded(decide(two, a_wallet(), NOW))
