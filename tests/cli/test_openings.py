"""Wallets that cannot be loaded into: why, in one sentence, and before any operation is sent."""

import time

import pytest

from mercuria.cli.load.errors import LoadError
from mercuria.cli.load.feed import Answer, Decision
from mercuria.cli.load.openings import MS_PER_DAY, Openings
from mercuria.cli.load.terms import Terms
from mercuria.config import current_settings
from mercuria.domain.rejections import Code

TERMS = Terms("CZK", 1_000_000)


def answer(code: Code | None = None, age_ms: float = 0) -> Answer:
    return Answer(Decision(7, code=code), int(time.time() * 1000 - age_ms), is_repeat=True)


def test_wallets_that_are_open_on_these_terms_are_loaded_into() -> None:
    openings = Openings()
    openings.hear("ann", answer())
    openings.hear("bob", answer(age_ms=(current_settings().receipts_days - 0.5) * MS_PER_DAY))
    openings.require_all(TERMS)


@pytest.mark.parametrize(
    ("refusal", "sentence"),
    [
        (answer(Code.WALLET_ALREADY_EXISTS), "it was opened 7 days ago or earlier, or by another client."),
        # Remembered still, but not for as long as a load may take.
        (
            answer(age_ms=current_settings().receipts_days * MS_PER_DAY - 1000),
            "it was opened 7 days ago or earlier",
        ),
        (answer(Code.UNKNOWN_CURRENCY), "it could not be opened. The currency must be an ISO 4217 code"),
    ],
)
def test_why_a_wallet_is_not_loaded_into_is_said(refusal: Answer, sentence: str) -> None:
    openings = Openings()
    openings.hear("ann", refusal)
    openings.hear("bob", answer())
    with pytest.raises(LoadError) as raised:
        openings.require_all(TERMS)
    start = f"no operation was sent, because of 1 wallet, {TERMS.wallet_id('ann')} of account ann: "
    assert str(raised.value).startswith(start + sentence)


def test_wallets_of_an_earlier_load_with_another_limit_are_loaded_into() -> None:
    openings = Openings()
    openings.hear("ann", answer(Code.COMMAND_ID_REUSED))
    openings.hear("bob", answer())
    openings.require_all(TERMS)
    assert openings.on_other_terms == ["ann"]


def test_ids_are_the_same_for_ever() -> None:
    """With other ids, everything that was ever loaded would load again."""
    assert str(TERMS.wallet_id("1726")) == "b94d7203-a0a9-5498-a1c2-1a48f508b201"
    assert TERMS.opening("1726").id == TERMS.wallet_id("1726")
    assert Terms("EUR", 0).opening("1726").owner_id == TERMS.opening("1726").owner_id
