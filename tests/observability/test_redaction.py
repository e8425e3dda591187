"""What no log line may show."""

import pytest

from mercuria.observability.redaction import REDACTED, Redaction

SECRET = "hunter2-Correct.horse"
JWT = "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"
BCRYPT = "$2b$12$R9h/cIPz0gi.URNNX3kh2OPST9/PgBkqquzi.Ss7KIUgO2t0jWMUW"


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        (f"Authorization: Bearer {JWT}", "Authorization: Bearer ***"),
        (f"{{'Authorization': 'Bearer {JWT}'}}", "{'Authorization': ***}"),
        (f"authorization=Basic {SECRET}", "authorization=Basic ***"),
        (f"a token {JWT} came", "a token *** came"),
        (f'{{"refresh_token": "{SECRET}"}}', '{"refresh_token": ***}'),
        (f'{{"password":"{SECRET} \\" and more","a":1}}', '{"password":***,"a":1}'),
        (f"dbname=mercuria password={SECRET} host=h", "dbname=mercuria password=*** host=h"),
        (f"password='it''s' {SECRET}", f"password=***'s' {SECRET}"),
        (f"postgresql://mercuria_app:{SECRET}@db:5432/mercuria", "postgresql://***@db:5432/mercuria"),
        (f"rediss://:{SECRET}@h/0 is away", "rediss://***@h/0 is away"),
        (f"password_hash={BCRYPT}", "password_hash=***"),
        (f"the hash {BCRYPT}.", "the hash ***"),
        (
            f'{{"kty":"OKP","crv":"Ed25519","d":"{SECRET}","x":"11qY"}}',
            '{"kty":"OKP","crv":"Ed25519","d":***,"x":"11qY"}',
        ),
        (f"LEG_KEY={'ab' * 32}", "LEG_KEY=***"),
        ("Key (email)=(zoe.o'neil+x@mail.example.org) is there", "Key (email)=(***) is there"),
    ],
)
def test_secrets_are_taken_out_of_a_text(text: str, clean: str) -> None:
    redaction = Redaction()
    assert redaction.may_concern(text)
    assert redaction(text) == clean.replace("***", REDACTED)


@pytest.mark.parametrize(
    "text",
    [
        "Partition 3 of mercuria.wallet.events is read again from 17 on.",
        "A key that comes again is answered again.",
        "Tokens are checked with two keys.",
        "http://127.0.0.1:6066/health/ready",
        f"hash {'0123456789abcdef' * 4}",
    ],
)
def test_the_rest_stays_as_it_is(text: str) -> None:
    assert Redaction()(text) == text


def test_the_passwords_of_urls_are_known_by_their_value() -> None:
    redaction = Redaction("postgresql://app:s%3Acret-words@db/mercuria", "redis://h/0")
    for said in ("s%3Acret-words", "s:cret-words"):
        assert redaction.may_concern(f"FATAL: {said} is wrong")
        assert redaction(f"FATAL: {said} is wrong") == f"FATAL: {REDACTED} is wrong"


@pytest.mark.parametrize("name", ["password", "refresh_token", "Authorization", "api_key", "leg_key"])
def test_fields_are_secret_by_their_name(name: str) -> None:
    assert Redaction().field(name, SECRET) == REDACTED
    assert Redaction().field("partition", 3) == 3
    assert Redaction().field("by", f"Bearer {JWT}") == f"Bearer {REDACTED}"


def test_a_long_text_takes_no_long_time() -> None:
    text = "a" * 1_000_000 + "@password" + "\\" * 1000
    assert Redaction()(text).endswith("\\")
