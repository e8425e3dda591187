"""Effective dates: what is one, in which one form it is kept, and that it is part of a hash only where it is there."""

from contextlib import suppress
from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from mercuria.domain.commands import WalletSide
from mercuria.domain.effective import EffectiveError, effective_at, text_of
from mercuria.domain.events import BalanceUpdated, CommandRejected
from mercuria.domain.ledger import NO_HASH, entries_of
from mercuria.domain.transaction import (
    TransactionCompleted,
    TransactionFailed,
    ended,
    refused,
    refused_transaction,
    transaction_of,
)
from mercuria.domain.wallet import decide

from .story import NOW, a_wallet, credit, deposit, encoded, refund, withdraw

DAY = "2021-03-04T00:00:00.000Z"

MOMENTS = {
    "2021-03-04": DAY,
    "2021-03-04T00:00:00Z": DAY,
    "2021-03-04t00:00:00z": DAY,
    "2021-03-04 00:00:00Z": DAY,
    "2021-03-04T00:00:00.000000000Z": DAY,
    "2021-03-04T05:30:00+05:30": DAY,
    "2021-03-03T16:00:00-08:00": DAY,
    "2021-03-04T00:00:00-00:00": DAY,
    "2021-03-04T23:59:59.9999Z": "2021-03-04T23:59:59.999Z",
    "2021-03-04T12:00:00.5Z": "2021-03-04T12:00:00.500Z",
    "2024-02-29": "2024-02-29T00:00:00.000Z",
    "2016-12-31T23:59:60Z": "2016-12-31T23:59:59.999Z",
    "0001-01-01": "0001-01-01T00:00:00.000Z",
    "9999-12-31T23:59:59.999Z": "9999-12-31T23:59:59.999Z",
    "1900-01-01": "1900-01-01T00:00:00.000Z",
}


@pytest.mark.parametrize(("text", "form"), MOMENTS.items(), ids=list(MOMENTS))
def test_a_moment_is_kept_in_one_form(text: str, form: str) -> None:
    assert effective_at(text) == form
    assert effective_at(form) == form


NO_MOMENTS = [
    "",
    "2021",
    "2021-03",
    "20210304",
    "2021-W09-4",
    "2021-3-4",
    "04.03.2021",
    "2021-02-30",
    "2021-13-01",
    "2021-00-01",
    "2021-03-04Z",
    "2021-03-04T00:00:00",
    "2021-03-04T00:00Z",
    "2021-03-04T24:00:00Z",
    "2021-03-04T00:60:00Z",
    "2021-03-04T00:00:61Z",
    "2021-03-04T00:00:00,5Z",
    "2021-03-04T00:00:00+0100",
    "2021-03-04T00:00:00+24:00",
    "2021-03-04T00:00:00+01:60",
    "2021-03-04T00:00:00 01:00",
    "2021-03-04\n",
    " 2021-03-04",
    "\uff12\uff10\uff12\uff11-03-04",
    "+2021-03-04",
    "-0001-01-01",
    "0000-12-31",
    "10000-01-01",
    "0001-01-01T00:00:00+00:01",
    "9999-12-31T23:59:59-00:01",
    "now",
    "1614816000000",
]


@pytest.mark.parametrize("text", NO_MOMENTS, ids=ascii)
def test_what_is_no_moment_is_refused_with_what_one_is(text: str) -> None:
    with pytest.raises(EffectiveError, match=r"^`effective_at` must be .* 9999-12-31 in UTC\.$"):
        effective_at(text)


@for_all(st.datetimes(timezones=st.timezones()))
def test_every_moment_of_a_calendar_is_one_in_utc_or_refused(moment: datetime) -> None:
    try:
        form = effective_at(moment.isoformat())
    except EffectiveError:
        # Its offset has seconds, or UTC has it in another year than there is.
        return
    assert form == text_of(moment.astimezone(UTC))


@for_all(st.text(max_size=40))
def test_any_text_is_a_moment_or_refused(text: str) -> None:
    with suppress(EffectiveError):
        assert effective_at(effective_at(text)) == effective_at(text)


# What is made of it.


def event_of(command: object, **wallet: object) -> BalanceUpdated:
    event = decide(command, a_wallet(**wallet), NOW)  # type: ignore[arg-type]  # the commands of these tests
    assert isinstance(event, BalanceUpdated)
    return event


@pytest.mark.parametrize("said", [None, DAY])
def test_a_transaction_and_its_end_carry_it(said: str | None) -> None:
    fields = {"effective_at": said} if said else {}
    for command in (deposit(**fields), credit(**fields), refund(**fields)):
        event = event_of(command, sent=100)
        assert transaction_of(event, 0).effective_at == said
        end = ended(event, 1)
        assert end is not None and (end.effective_at or None) == said
        assert (b"effective_at" in encoded(end)) == (said is not None)


def test_a_refused_transaction_carries_it() -> None:
    event = decide(withdraw(1001, effective_at=DAY), a_wallet(), NOW)
    assert isinstance(event, CommandRejected)
    transaction = refused_transaction(event, NOW)
    assert transaction is not None and transaction.effective_at == DAY
    end = refused(transaction, 1)
    assert isinstance(end, TransactionFailed) and end.effective_at == DAY


def completed(**fields: object) -> TransactionCompleted:
    end = ended(event_of(deposit(**fields)), 1)
    assert isinstance(end, TransactionCompleted)
    return end


def test_an_entry_without_one_has_the_hash_and_the_bytes_that_it_always_had() -> None:
    debit, entry = entries_of(completed(), 3, NOW.time_ms, sequence=0, previous=NO_HASH)
    assert b"effective_at" not in encoded(debit) + encoded(entry)
    assert debit.hash == "a6019d33a987ee3c7c3f6345e2f26e5147d5c619cb6692b902e691a546a3c234"
    assert entry.hash == "52b3371d8b384aca5b4d0578f58fcf6b4d9cd7b2d14189af9b3994b2a1d88bdb"


def test_the_hash_of_an_entry_covers_it() -> None:
    hashes = {
        entries_of(completed(**said), 3, NOW.time_ms, sequence=0, previous=NO_HASH)[0].hash
        for said in ({}, {"effective_at": DAY}, {"effective_at": "2021-03-05T00:00:00.000Z"})
    }
    assert len(hashes) == 3


def test_both_entries_of_a_transaction_have_it() -> None:
    entries = entries_of(completed(effective_at=DAY), 3, NOW.time_ms, sequence=0, previous=NO_HASH)
    assert [each.effective_at for each in entries] == [DAY, DAY]
    assert WalletSide(UUID(entries[1].account), a_wallet().owner_id, 1100, 5) == completed().to_wallet
