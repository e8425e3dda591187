"""The legs of a transfer: what a wallet sends to another one, and that it sends nothing else."""

import pytest
from msgspec import Raw
from msgspec.structs import replace

from mercuria.domain.commands import Credit, Decidable, Forwarded, Leg, Origin, Refund, Transfer, WalletSide
from mercuria.domain.events import BalanceUpdated
from mercuria.domain.parsing import MAX_COMMAND_BYTES, read_command
from mercuria.domain.rejections import Code
from mercuria.domain.transfer import react
from mercuria.domain.wallet import Wallet, decide, evolve

from .faults import Situation, acceptable, single_faults
from .story import (
    BEGUN,
    ID,
    MAX,
    NOW,
    OTHER,
    OWNER,
    STRANGER,
    WALLET,
    a_wallet,
    close,
    credit,
    deposit,
    encoded,
    freeze,
    given,
    open_wallet,
    refund,
    transfer,
)

HERE = Origin(NOW.partition, NOW.offset)


def reaction(command: Decidable, wallet: Wallet | None) -> Leg | None:
    return react(command, decide(command, wallet, NOW), NOW)


def test_a_debit_sends_a_credit_to_the_receiver() -> None:
    command = transfer(40, reference="rent", metadata={"month": "May"}, actor_id=OWNER)
    assert reaction(command, a_wallet(balance=100, version=2)) == Credit(
        origin=HERE,
        wallet_id=OTHER,
        id=ID,
        initiated=NOW,
        amount=40,
        currency="EUR",
        sender=WalletSide(WALLET, OWNER, balance=60, version=3),
        reference="rent",
        metadata={"month": "May"},
    )


def test_legs_carry_the_time_at_which_a_transfer_counts() -> None:
    day = "2021-03-04T00:00:00.000Z"
    out = reaction(transfer(40, effective_at=day), a_wallet())
    assert isinstance(out, Credit) and out.effective_at == day
    back = reaction(credit(40, effective_at=day), None)
    assert isinstance(back, Refund) and back.effective_at == day


def test_legs_without_an_effective_date_are_as_they_always_were() -> None:
    assert b"effective_at" not in encoded(reaction(transfer(40), a_wallet()))
    assert b"effective_at" not in encoded(reaction(credit(40), None))


def test_a_debit_without_currency_sends_a_credit_in_that_of_the_wallet() -> None:
    leg = reaction(transfer(40, currency=None), a_wallet(currency="CZK"))
    assert isinstance(leg, Credit) and leg.currency == "CZK"


def test_a_refused_credit_sends_a_refund_to_the_sender() -> None:
    command = credit(40, reference="rent", metadata={"month": "May"}, mac="seal of the credit")
    assert reaction(command, a_wallet(status="frozen")) == Refund(
        origin=HERE,
        wallet_id=OTHER,
        id=ID,
        initiated=BEGUN,
        amount=40,
        currency="EUR",
        receiver=WalletSide(WALLET),
        code="wallet_frozen",
        reference="rent",
        metadata={"month": "May"},
    )


REFUSED_CREDITS = [(code, it) for kind, code, it in single_faults() if kind == "credit"]


@pytest.mark.parametrize(
    ("code", "situation"), [pytest.param(code, situation, id=code) for code, situation in REFUSED_CREDITS]
)
def test_a_refund_names_the_reason_of_the_refusal(code: Code, situation: Situation) -> None:
    leg = reaction(*situation)
    assert isinstance(leg, Refund)
    assert leg.code == code


@pytest.mark.parametrize("kind", sorted(acceptable().keys() - {"transfer"}))
def test_nothing_follows_from_what_was_accepted_but_from_a_transfer(kind: str) -> None:
    assert reaction(*acceptable()[kind]) is None


@pytest.mark.parametrize(
    "situation",
    [pytest.param(it, id=f"{kind}: {code}") for kind, code, it in single_faults() if kind != "credit"],
)
def test_nothing_follows_from_what_was_refused_but_from_a_credit(situation: Situation) -> None:
    assert reaction(*situation) is None


def test_the_same_reaction_gives_the_same_bytes() -> None:
    for situation in (acceptable()["transfer"], REFUSED_CREDITS[0][1]):
        assert encoded(reaction(*situation)) == encoded(reaction(*situation))


@pytest.mark.parametrize("code", sorted({code for code, _ in REFUSED_CREDITS}))
def test_a_refund_can_tell_every_reason_for_which_a_credit_is_refused(code: Code) -> None:
    event = given(open_wallet(), deposit(100), transfer(100)).when(refund(100, code=code)).event
    assert isinstance(event, BalanceUpdated)
    assert event.failure is not None
    assert event.failure.code == code


# Refunds are never refused, and always fit.


@pytest.mark.parametrize(
    ("past", "status"),
    [
        pytest.param((), "open", id="into an open wallet"),
        pytest.param((freeze(),), "frozen", id="into a frozen wallet, which stays frozen"),
        pytest.param((close(),), "open", id="into a closed wallet, which is open again"),
    ],
)
def test_a_refund_gives_all_the_money_back(past: tuple[Decidable, ...], status: str) -> None:
    after = given(open_wallet(), deposit(100), transfer(100), *past).when(refund(100)).after
    assert after is not None
    assert (after.balance, after.sent, after.status) == (100, 0, status)


def test_a_second_refund_finds_the_wallet_open_already() -> None:
    past = (open_wallet(), deposit(100), transfer(60), transfer(40), close())
    after = given(*past, refund(60)).when(refund(40)).after
    assert after is not None
    assert (after.balance, after.sent, after.status) == (100, 0, "open")


def test_a_refund_fits_into_a_wallet_that_was_filled_up_meanwhile() -> None:
    past = (open_wallet(), deposit(MAX - 1), transfer(MAX - 1), deposit(1))
    after = given(*past).when(refund(MAX - 1)).after
    assert after is not None
    assert (after.balance, after.sent) == (MAX, 0)


def test_a_refund_fits_after_the_largest_overdraft_was_sent_and_paid_off() -> None:
    past = (open_wallet(overdraft_limit=MAX), transfer(MAX), deposit(MAX))
    after = given(*past).when(refund(MAX)).after
    assert after is not None
    assert (after.balance, after.sent) == (MAX, 0)


@pytest.mark.parametrize(
    ("wallet", "command"),
    [
        pytest.param(None, refund(1), id="without a wallet"),
        pytest.param(a_wallet(sent=1), refund(2), id="of more than was sent"),
    ],
)
def test_a_refund_that_cannot_be_is_a_bug_and_stops_the_worker(
    wallet: Wallet | None, command: Refund
) -> None:
    with pytest.raises(AssertionError):
        decide(command, wallet, NOW)


# What a wallet sends, another one has to be able to read: the money has left already.


def test_a_credit_and_its_refund_can_be_read_by_their_receivers() -> None:
    paid = reaction(transfer(MAX, reference="r" * 255), a_wallet(balance=MAX))
    assert isinstance(paid, Credit)
    assert read_command(encoded(paid)) == paid
    back = reaction(paid, None)
    assert isinstance(back, Refund)
    assert encoded(read_command(encoded(back))) == encoded(back)


def largest_transfer() -> bytes:
    """Return a transfer of as many bytes as a record may have; its metadata is within its limits."""
    notes = {f"{n:040}": "账" * 500 for n in range(42)}
    room = MAX_COMMAND_BYTES - len(encoded(transfer(1, reference="r" * 255, metadata={**notes, "rest": ""})))
    return encoded(transfer(1, reference="r" * 255, metadata={**notes, "rest": "r" * room}))


def test_the_largest_transfer_gives_a_credit_and_a_refund_that_can_be_read() -> None:
    assert len(largest_transfer()) == MAX_COMMAND_BYTES
    command = read_command(largest_transfer())
    assert isinstance(command, Decidable)
    leg = reaction(command, a_wallet())
    assert isinstance(leg, Credit)
    assert len(encoded(leg)) > MAX_COMMAND_BYTES
    assert read_command(encoded(replace(leg, mac="m" * 64))) == replace(leg, mac="m" * 64)
    back = reaction(leg, None)
    assert isinstance(back, Refund)
    assert len(encoded(back)) > MAX_COMMAND_BYTES
    assert read_command(encoded(replace(back, mac="m" * 64))) == replace(back, mac="m" * 64)


def test_the_largest_transfer_can_be_forwarded() -> None:
    leg = Forwarded(origin=HERE, wallet_id=WALLET, command=Raw(largest_transfer()), mac="m" * 64)
    read = read_command(encoded(leg))
    assert isinstance(read, Forwarded)
    assert encoded(read) == encoded(leg)
    assert isinstance(read_command(bytes(read.command)), Transfer)


def test_both_wallets_agree_on_what_the_transfer_was() -> None:
    command = transfer(40, reference="rent", metadata={"month": "May"})
    sender, receiver = a_wallet(balance=100), a_wallet(id=OTHER, owner_id=STRANGER, balance=1, version=8)
    debit = decide(command, sender, NOW)
    leg = react(command, debit, NOW)
    assert isinstance(leg, Credit)
    last = decide(leg, receiver, replace(NOW, offset=101))
    assert isinstance(debit, BalanceUpdated)
    assert isinstance(last, BalanceUpdated)
    assert last.from_wallet == debit.from_wallet == WalletSide(WALLET, OWNER, 60, 5)
    assert last.to_wallet == WalletSide(OTHER, STRANGER, 41, 9)
    assert (last.transaction_id, last.amount, last.reference, last.metadata) == (
        command.id,
        command.amount,
        command.reference,
        command.metadata,
    )
    assert evolve(receiver, last, NOW.time_ms) == replace(
        receiver, balance=41, version=9, updated_at_ms=NOW.time_ms
    )
