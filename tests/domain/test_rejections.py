"""Why commands are refused: every reason, which of several reasons counts, and what a reason is called for ever."""

from typing import Any, get_args

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st
from msgspec.structs import replace

from mercuria.domain.commands import Decidable
from mercuria.domain.events import CommandRejected
from mercuria.domain.rejections import CODES, DETAILS, NUMBERS, Code
from mercuria.domain.wallet import Wallet, decide, evaluate

from .faults import FAULTS, Situation, acceptable, piled_faults, single_faults
from .story import (
    MAX,
    NOW,
    OPERATOR,
    OTHER,
    OWNER,
    STRANGER,
    WALLET,
    Given,
    a_wallet,
    close,
    credit,
    deposit,
    encoded,
    freeze,
    open_wallet,
    set_limits,
    transfer,
    unfreeze,
    withdraw,
)

SINGLE = single_faults()
PILED = piled_faults()

READING = {
    Code.EMPTY_RECORD,
    Code.RECORD_TOO_LARGE,
    Code.MALFORMED_JSON,
    Code.MALFORMED_COMMAND,
    Code.UNKNOWN_COMMAND_TYPE,
    Code.MISSING_FIELD,
    Code.UNKNOWN_FIELD,
    Code.INVALID_FIELD,
}
"""What `test_parsing` covers."""

STREAMING = {
    Code.MISSING_KEY,
    Code.KEY_MISMATCH,
    Code.LEG_NOT_AUTHENTIC,
    Code.COMMAND_ID_REUSED,
    Code.UNREADABLE_RECORD,
    Code.SKIPPED,
}
"""What the agent refuses before it asks the domain: it takes the record, its key, the mac, a receipt, or a skip."""


def test_every_command_has_its_faults() -> None:
    assert FAULTS.keys() == {str(struct.__struct_config__.tag) for struct in get_args(Decidable)}


@pytest.mark.parametrize("kind", FAULTS)
def test_nothing_wrong_is_accepted(kind: str) -> None:
    command, wallet = acceptable()[kind]
    assert not isinstance(decide(command, wallet, NOW), CommandRejected)


@pytest.mark.parametrize(
    ("code", "situation"),
    [pytest.param(code, situation, id=f"{kind}: {code}") for kind, code, situation in SINGLE],
)
def test_one_thing_wrong_is_refused_for_it(code: Code, situation: Situation) -> None:
    command, wallet = situation
    Given(wallet).when(command).then_refused(code)


@pytest.mark.parametrize(
    ("code", "situation"), [pytest.param(code, situation, id=name) for name, code, situation in PILED]
)
def test_by_descending_precedence(code: Code, situation: Situation) -> None:
    command, wallet = situation
    Given(wallet).when(command).then_refused(code)


def test_every_code_is_reached_by_one_table_or_another() -> None:
    assert {code for _, code, _ in SINGLE} | READING | STREAMING == set(Code)


ACTORS = [(None, "user"), (OWNER, "user"), (OWNER, "operator"), (STRANGER, "user"), (OPERATOR, "operator")]
COMMANDS: list[Decidable] = [
    open_wallet(),
    deposit(),
    withdraw(),
    transfer(),
    credit(),
    freeze(),
    unfreeze(),
    close(),
    set_limits(),
]


@st.composite
def situations(draw: st.DrawFn) -> Situation:
    """Any decidable command, on any wallet that could be, by anybody."""
    command = draw(st.sampled_from(COMMANDS))
    amounts = st.sampled_from([-(2**63), -1, 0, 1, 99, 100, MAX - 1, MAX])
    fields = command.__struct_fields__
    if "actor_id" in fields:
        actor, role = draw(st.sampled_from(ACTORS))
        command = replace(command, actor_id=actor, actor_role=role)
    if "amount" in fields:
        amount = draw(amounts.filter(lambda a: a > 0)) if "origin" in fields else draw(amounts)
        command = replace(command, amount=amount)
    if "currency" in fields:
        command = replace(command, currency=draw(st.sampled_from(["EUR", "CZK", "XXX", ""])))
    if "to_wallet_id" in fields:
        command = replace(command, to_wallet_id=draw(st.sampled_from([WALLET, OTHER])))
    if "overdraft_limit" in fields:
        command = replace(command, overdraft_limit=draw(amounts))
    return command, draw(st.none() | wallets())


@st.composite
def wallets(draw: st.DrawFn) -> Wallet:
    """Any wallet whose numbers keep the invariants."""
    limit = draw(st.sampled_from([0, 1, 100, MAX]))
    balance = draw(st.sampled_from([0, 1, 100, MAX - 1, MAX, -limit, -limit + 1]))
    room = min(MAX, MAX - balance)
    return a_wallet(
        balance=balance,
        overdraft_limit=limit,
        sent=draw(st.sampled_from([0, room, max(room - 1, 0)])),
        status=draw(st.sampled_from(["open", "frozen", "closed"])),
        currency=draw(st.sampled_from(["EUR", "CZK"])),
    )


@for_all(situations())
def test_a_command_is_refused_for_nothing_that_its_table_does_not_name(situation: Situation) -> None:
    command, wallet = situation
    code = evaluate(command, wallet).code
    table = FAULTS[str(type(command).__struct_config__.tag)]
    assert code is None or code in {named for named, _ in table.by_precedence}


@for_all(situations())
def test_an_accepted_command_leaves_the_wallet_within_its_limits(situation: Situation) -> None:
    command, wallet = situation
    result = Given(wallet).when(command)
    if isinstance(result.event, CommandRejected):
        assert result.after is wallet
        return
    after = result.after
    assert after is not None
    assert after.version == (wallet.version + 1 if wallet else 1)
    assert after.balance <= MAX
    # A limit counts for what comes: nothing but a change of it leaves a balance below it.
    assert -after.overdraft_limit <= after.balance or command.__struct_config__.tag == "set_limits"
    assert 0 <= after.sent <= MAX
    assert after.balance + after.sent <= MAX


@for_all(situations())
def test_the_same_decision_gives_the_same_bytes(situation: Situation) -> None:
    command, wallet = situation
    assert encoded(decide(command, wallet, NOW)) == encoded(decide(command, wallet, NOW))


WHO_MAY: list[tuple[str, Decidable, Wallet | None, set[str]]] = [
    ("open an own wallet", open_wallet(), None, {"producer", "owner", "operator"}),
    ("open one with an overdraft", open_wallet(overdraft_limit=1), None, {"producer", "operator"}),
    ("open one for another user", open_wallet(owner_id=OTHER), None, {"producer", "operator"}),
    ("deposit", deposit(), a_wallet(), {"producer", "owner"}),
    ("withdraw", withdraw(), a_wallet(), {"producer", "owner"}),
    ("send", transfer(), a_wallet(), {"producer", "owner"}),
    ("freeze", freeze(), a_wallet(), {"producer", "operator"}),
    ("unfreeze", unfreeze(), a_wallet(status="frozen"), {"producer", "operator"}),
    ("close", close(), a_wallet(balance=0), {"producer", "owner"}),
    ("change the overdraft limit", set_limits(), a_wallet(), {"producer", "operator"}),
]
PEOPLE: dict[str, dict[str, Any]] = {
    "producer": {"actor_id": None},
    "owner": {"actor_id": OWNER},
    "stranger": {"actor_id": STRANGER},
    "operator": {"actor_id": OPERATOR, "actor_role": "operator"},
}


@pytest.mark.parametrize("person", PEOPLE)
@pytest.mark.parametrize(
    ("command", "wallet", "allowed"), [pytest.param(*row[1:], id=row[0]) for row in WHO_MAY]
)
def test_who_may(command: Decidable, wallet: Wallet | None, allowed: set[str], person: str) -> None:
    code = evaluate(replace(command, **PEOPLE[person]), wallet).code
    assert (code is None) == (person in allowed)
    assert code in (None, Code.NOT_WALLET_OWNER, Code.OPERATOR_REQUIRED)


def test_a_role_without_an_actor_changes_nothing() -> None:
    assert evaluate(freeze(actor_role="user"), a_wallet()).code is None
    assert evaluate(withdraw(actor_role="operator"), a_wallet()).code is None


PINNED = {
    "empty_record": 1,
    "record_too_large": 2,
    "malformed_json": 3,
    "malformed_command": 4,
    "unknown_command_type": 5,
    "missing_field": 6,
    "unknown_field": 7,
    "invalid_field": 8,
    "missing_key": 9,
    "key_mismatch": 10,
    "leg_not_authentic": 11,
    "amount_must_be_positive": 12,
    "amount_too_large": 13,
    "unknown_currency": 14,
    "source_and_target_must_differ": 15,
    "overdraft_limit_out_of_range": 16,
    "operator_required": 17,
    "command_id_reused": 18,
    "wallet_not_found": 19,
    "wallet_already_exists": 20,
    "not_wallet_owner": 21,
    "wallet_closed": 22,
    "wallet_frozen": 23,
    "wallet_not_frozen": 24,
    "wallet_not_empty": 25,
    "currency_mismatch": 26,
    "insufficient_funds": 27,
    "balance_would_overflow": 28,
    "unreadable_record": 29,
    "skipped": 30,
}
"""Receipts keep these numbers for days: a new code gets the next one, and none ever changes."""


def test_a_code_keeps_its_number_for_ever() -> None:
    assert {str(code): number for code, number in NUMBERS.items()} == PINNED


def test_numbers_lead_back_to_their_codes_and_0_stays_free() -> None:
    assert {number: NUMBERS[code] for number, code in CODES.items()} == {n: n for n in NUMBERS.values()}
    assert 0 not in CODES


@pytest.mark.parametrize("code", Code)
def test_every_code_is_explained_in_one_sentence(code: Code) -> None:
    detail = DETAILS[code]
    assert detail[0].isupper()
    assert detail.endswith(".")
    assert detail.count(". ") == 0


def test_nothing_is_explained_that_is_no_code() -> None:
    assert set(DETAILS) == set(Code)
