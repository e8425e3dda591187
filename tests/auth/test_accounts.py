"""Accounts: people register, log in and stay logged in; who uses a spent token again ends the session for all."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest

from mercuria.auth.accounts import Accounts, Session, User
from mercuria.auth.emails import Email, parse_email
from mercuria.auth.passwords import Passwords
from mercuria.auth.tokens import Caller, Tokens
from mercuria.config import Settings
from mercuria.embedded.stack import Stack
from mercuria.http.problems import Problem
from mercuria.postgres.database import Database, DatabaseUnavailable
from tests.auth.conftest import PASSWORD, an_email

OTHER = "another password of mine"


@pytest.fixture
async def session(accounts: Accounts, email: Email) -> Session:
    """Return the first session of a new account."""
    return good(await accounts.register(email, PASSWORD))


@pytest.fixture
async def other_worker(servers: Stack, settings: Settings, passwords: Passwords) -> AsyncIterator[Accounts]:
    """Return the same accounts as another worker sees them."""
    database = Database(servers.env["MERCURIA_DATABASE"])
    yield Accounts(database, passwords, Tokens(settings), settings)
    await database.close()


@pytest.fixture
async def of_owner(servers: Stack, settings: Settings, passwords: Passwords) -> AsyncIterator[Accounts]:
    """Return the same accounts as the owner of the tables sees them, who alone gives roles."""
    database = Database(servers.env["MERCURIA_DATABASE_OWNER"])
    yield Accounts(database, passwords, Tokens(settings), settings)
    await database.close()


def good(outcome: Session | Problem) -> Session:
    """Return a session that was not refused."""
    assert isinstance(outcome, Session), outcome
    return outcome


def code(outcome: Session | Problem) -> str:
    """Return why something was refused."""
    assert isinstance(outcome, Problem), "it was not refused"
    return outcome.code


async def live_families(database: Database, session: Session) -> int:
    """Return how many sessions of a person can be refreshed."""
    row = await database.row(
        "SELECT count(*) AS number FROM refresh_families"
        " WHERE user_id = %s AND revoked_at IS NULL AND expires_at > now()",
        (session.user.id,),
    )
    assert row is not None
    return int(row.number)


async def age(database: Database, session: Session, days: int) -> None:
    """Let a person's sessions have begun so many days earlier."""
    for table, columns in (
        ("refresh_families", ("created_at", "expires_at")),
        ("refresh_tokens", ("created_at", "expires_at", "kept_until")),
    ):
        changes = ", ".join(f"{column} = {column} - {days} * interval '1 day'" for column in columns)
        families = "SELECT id FROM refresh_families WHERE user_id = %s"
        which = "id" if table == "refresh_families" else "family_id"
        await database.execute(
            f"UPDATE {table} SET {changes} WHERE {which} IN ({families})", (session.user.id,)
        )


# Registering.


async def test_who_registers_is_logged_in(accounts: Accounts, settings: Settings, email: Email) -> None:
    session = good(await accounts.register(email, PASSWORD))
    assert (session.user.email, session.user.role) == (email.shown, "user")
    assert (session.token_type, session.expires_in) == ("Bearer", 900)
    assert Tokens(settings).verify(session.access_token) == Caller(session.user.id, "user")
    assert await accounts.user(session.user.id) == session.user


async def test_an_address_has_one_account_however_it_is_written(accounts: Accounts, email: Email) -> None:
    good(await accounts.register(email, PASSWORD))
    shouted = parse_email(email.shown.upper())
    assert isinstance(shouted, Email)
    assert code(await accounts.register(shouted, OTHER)) == "email_taken"
    assert good(await accounts.login(shouted, PASSWORD)).user.email == email.shown


@pytest.mark.parametrize("pair", [("stra\u00dfe", "strasse"), ("\ufb01nn", "finn")])
async def test_letters_that_unicode_folds_into_others_make_two_accounts(
    accounts: Accounts, email: Email, pair: tuple[str, str]
) -> None:
    one, other = (spelled(word, email) for word in pair)
    first = good(await accounts.register(one, PASSWORD))
    second = good(await accounts.register(other, OTHER))
    assert first.user.id != second.user.id
    assert good(await accounts.login(one, PASSWORD)).user == first.user
    assert good(await accounts.login(other, OTHER)).user == second.user
    assert code(await accounts.login(other, PASSWORD)) == "invalid_credentials"


async def test_an_account_of_the_rule_before_keeps_its_address_and_leaves_the_other_one_free(
    accounts: Accounts, database: Database, email: Email
) -> None:
    sharp, plain = spelled("stra\u00dfe", email), spelled("strasse", email)
    old = await made_by_the_rule_before(accounts, database, sharp)
    assert code(await accounts.login(plain, PASSWORD)) == "invalid_credentials", "it is somebody else's"
    assert good(await accounts.login(sharp, PASSWORD)).user == old
    assert code(await accounts.register(sharp, OTHER)) == "email_taken"
    other = good(await accounts.register(plain, OTHER)).user
    assert good(await accounts.login(sharp, PASSWORD)).user == old
    assert good(await accounts.login(plain, OTHER)).user == other


@pytest.mark.parametrize("first", ["login", "register", "register the other", "set_role", "set_password"])
async def test_whatever_meets_an_account_of_the_rule_before_first_finds_it(
    accounts: Accounts, of_owner: Accounts, database: Database, email: Email, first: str
) -> None:
    sharp, plain = spelled("Stra\u00dfe", email), spelled("strasse", email)
    old = await made_by_the_rule_before(accounts, database, sharp)
    again = spelled("STRA\u1e9eE", email)
    password = PASSWORD
    if first == "login":
        assert good(await accounts.login(again, PASSWORD)).user == old
    elif first == "register":
        assert code(await accounts.register(again, OTHER)) == "email_taken"
    elif first == "register the other":
        assert good(await accounts.register(plain, OTHER)).user.id != old.id
    elif first == "set_role":
        changed = await of_owner.set_role(again, "user")
        assert changed == old
    else:
        password = OTHER
        assert await accounts.set_password(again, OTHER) == old
    assert good(await accounts.login(sharp, password)).user == old


def spelled(word: str, email: Email) -> Email:
    """Return the address that begins with a word and goes on as another one."""
    parsed = parse_email(f"{word}.{email.shown}")
    assert isinstance(parsed, Email)
    return parsed


async def made_by_the_rule_before(accounts: Accounts, database: Database, email: Email) -> User:
    """Return an account whose row has the key that versions wrote that folded case."""
    user = good(await accounts.register(email, PASSWORD)).user
    change = {"key": email.former_key, "id": user.id}
    assert email.former_key != email.key
    await database.execute("UPDATE users SET email_key = %(key)s WHERE id = %(id)s", change)
    return user


async def test_of_twenty_at_once_one_gets_the_account(accounts: Accounts, email: Email) -> None:
    outcomes = await asyncio.gather(*(accounts.register(email, PASSWORD) for _ in range(20)))
    assert sorted(isinstance(outcome, Session) for outcome in outcomes) == [False] * 19 + [True]
    assert {outcome.code for outcome in outcomes if isinstance(outcome, Problem)} == {"email_taken"}


async def test_a_weak_password_makes_no_account(accounts: Accounts, email: Email) -> None:
    assert code(await accounts.register(email, "password1")) == "password_too_common"
    assert code(await accounts.register(email, email.shown)) == "password_too_common"
    assert code(await accounts.login(email, "password1")) == "invalid_credentials"


async def test_a_taken_address_costs_the_same_work(
    accounts: Accounts, passwords: Passwords, email: Email
) -> None:
    before = passwords.computed
    await accounts.register(email, PASSWORD)
    first = passwords.computed - before
    await accounts.register(email, PASSWORD)
    assert passwords.computed - before == 2 * first == 2


# Logging in.


async def test_the_right_password_begins_a_session_of_its_own(
    accounts: Accounts, database: Database, session: Session, email: Email
) -> None:
    another = good(await accounts.login(email, PASSWORD))
    assert another.user == session.user
    assert another.refresh_token != session.refresh_token
    assert await live_families(database, session) == 2


async def test_a_wrong_password_and_an_unknown_address_are_told_alike(
    accounts: Accounts, passwords: Passwords, session: Session, email: Email
) -> None:
    before = passwords.computed
    wrong = await accounts.login(email, OTHER)
    known = passwords.computed - before
    unknown = await accounts.login(an_email(), OTHER)
    assert wrong == unknown == Problem("invalid_credentials")
    assert passwords.computed - before == 2 * known == 2


async def test_a_hash_of_another_cost_is_made_anew_at_the_next_login(
    accounts: Accounts, database: Database, settings: Settings, session: Session, email: Email
) -> None:
    async def kept() -> str:
        row = await database.row("SELECT password_hash FROM users WHERE id = %s", (session.user.id,))
        assert row is not None
        return str(row.password_hash)

    dearer = Passwords(cost=5)
    changed = Accounts(database, dearer, Tokens(settings), settings)
    assert (await kept()).startswith("$2b$04$")
    assert code(await changed.login(email, OTHER)) == "invalid_credentials"
    assert (await kept()).startswith("$2b$04$"), "a wrong password changes nothing"
    outcomes = await asyncio.gather(*(changed.login(email, PASSWORD) for _ in range(4)))
    assert all(isinstance(outcome, Session) for outcome in outcomes)
    assert (await kept()).startswith("$2b$05$")
    dearer.close()


async def test_when_too_many_log_in_at_once_some_are_told_to_come_again(
    accounts: Accounts, session: Session, email: Email
) -> None:
    outcomes = await asyncio.gather(*(accounts.login(email, PASSWORD) for _ in range(60)))
    codes = {outcome.code for outcome in outcomes if isinstance(outcome, Problem)}
    assert codes <= {"overloaded"}
    assert sum(isinstance(outcome, Session) for outcome in outcomes) >= 30


# Refreshing.


async def test_a_refresh_token_gives_the_next_session(
    accounts: Accounts, settings: Settings, session: Session
) -> None:
    tokens = {session.refresh_token}
    for _ in range(3):
        session = good(await accounts.refresh(session.refresh_token))
        tokens.add(session.refresh_token)
        assert Tokens(settings).verify(session.access_token) == Caller(session.user.id, "user")
    assert len(tokens) == 4


async def test_only_a_digest_of_a_token_is_kept(database: Database, session: Session) -> None:
    rows = await database.rows("SELECT t::text AS everything FROM refresh_tokens t")
    assert rows
    assert not [row for row in rows if session.refresh_token in row.everything]
    assert len(session.refresh_token) == 43, "256 bits"


@pytest.mark.parametrize("generations", [0, 1, 3])
async def test_a_spent_token_ends_its_family_and_no_other(
    accounts: Accounts, database: Database, session: Session, email: Email, generations: int
) -> None:
    other = good(await accounts.login(email, PASSWORD))
    newest = good(await accounts.refresh(session.refresh_token))
    for _ in range(generations):
        newest = good(await accounts.refresh(newest.refresh_token))
    assert code(await accounts.refresh(session.refresh_token)) == "refresh_token_reused"
    assert code(await accounts.refresh(newest.refresh_token)) == "invalid_refresh_token"
    assert code(await accounts.refresh(session.refresh_token)) == "refresh_token_reused"
    assert await live_families(database, session) == 1
    good(await accounts.refresh(other.refresh_token))


async def test_a_spent_token_counts_as_reused_when_it_has_expired_too(
    accounts: Accounts, database: Database, session: Session
) -> None:
    await age(database, session, 29)
    newest = good(await accounts.refresh(session.refresh_token))
    await age(database, session, 20)
    assert code(await accounts.refresh(session.refresh_token)) == "refresh_token_reused"
    assert code(await accounts.refresh(newest.refresh_token)) == "invalid_refresh_token"


async def test_twenty_at_once_over_two_workers_get_one_new_session_at_most(
    accounts: Accounts, other_worker: Accounts, database: Database, email: Email
) -> None:
    for _ in range(5):
        session = good(await accounts.register(an_email(), PASSWORD))
        workers = [accounts, other_worker] * 10
        outcomes = await asyncio.gather(*(worker.refresh(session.refresh_token) for worker in workers))
        won = [outcome for outcome in outcomes if isinstance(outcome, Session)]
        assert len(won) <= 1
        assert {code(outcome) for outcome in outcomes if outcome not in won} == {"refresh_token_reused"}
        assert await live_families(database, session) == 0
        for outcome in won:
            assert code(await accounts.refresh(outcome.refresh_token)) == "invalid_refresh_token"


async def test_a_race_with_a_logout_leaves_no_live_family(
    accounts: Accounts, other_worker: Accounts, database: Database
) -> None:
    for _ in range(10):
        session = good(await accounts.register(an_email(), PASSWORD))
        await asyncio.gather(
            accounts.refresh(session.refresh_token), other_worker.logout(session.refresh_token)
        )
        assert await live_families(database, session) == 0


@pytest.mark.parametrize("token", ["", "unknown", "x" * 1024, "\ud800", "é"])
async def test_an_unknown_token_is_invalid(accounts: Accounts, token: str) -> None:
    assert code(await accounts.refresh(token)) == "invalid_refresh_token"
    await accounts.logout(token)


async def test_a_token_expires_after_thirty_idle_days(
    accounts: Accounts, database: Database, session: Session
) -> None:
    await age(database, session, 29)
    session = good(await accounts.refresh(session.refresh_token))
    await age(database, session, 30)
    assert code(await accounts.refresh(session.refresh_token)) == "refresh_token_expired"
    # That did not spend it.
    assert code(await accounts.refresh(session.refresh_token)) == "refresh_token_expired"


async def test_a_family_ends_after_ninety_days_however_often_it_is_refreshed(
    accounts: Accounts, database: Database, session: Session
) -> None:
    for _ in range(3):
        await age(database, session, 29)
        session = good(await accounts.refresh(session.refresh_token))
    await age(database, session, 3)
    assert code(await accounts.refresh(session.refresh_token)) == "refresh_token_expired"


async def test_what_has_ended_is_deleted_at_somebodys_login(
    accounts: Accounts, database: Database, session: Session, email: Email
) -> None:
    async def rows() -> list[Any]:
        return await database.rows(
            "SELECT f.id, t.hash FROM refresh_families f LEFT JOIN refresh_tokens t ON t.family_id = f.id"
            " WHERE f.user_id = %s",
            (session.user.id,),
        )

    await accounts.refresh(session.refresh_token)
    assert len(await rows()) == 2
    await age(database, session, 90)
    good(await accounts.login(email, PASSWORD))
    assert len(await rows()) == 1, "the new family alone"
    assert code(await accounts.refresh(session.refresh_token)) == "invalid_refresh_token"


# Logging out, and what operators change.


async def test_logging_out_ends_the_session_and_no_other(
    accounts: Accounts, session: Session, email: Email
) -> None:
    other = good(await accounts.login(email, PASSWORD))
    await accounts.logout(session.refresh_token)
    await accounts.logout(session.refresh_token)
    assert code(await accounts.refresh(session.refresh_token)) == "invalid_refresh_token"
    good(await accounts.refresh(other.refresh_token))


async def test_logging_out_with_a_spent_token_ends_the_session(accounts: Accounts, session: Session) -> None:
    newest = good(await accounts.refresh(session.refresh_token))
    await accounts.logout(session.refresh_token)
    assert code(await accounts.refresh(newest.refresh_token)) == "invalid_refresh_token"


async def test_another_password_ends_all_sessions(
    accounts: Accounts, database: Database, session: Session, email: Email
) -> None:
    await accounts.login(email, PASSWORD)
    assert await accounts.set_password(email, OTHER) == session.user
    assert await live_families(database, session) == 0
    assert code(await accounts.refresh(session.refresh_token)) == "invalid_refresh_token"
    assert code(await accounts.login(email, PASSWORD)) == "invalid_credentials"
    good(await accounts.login(email, OTHER))


async def test_a_login_that_races_with_a_new_password_begins_no_session_that_survives(
    accounts: Accounts, other_worker: Accounts, database: Database
) -> None:
    for _ in range(10):
        email = an_email()
        session = good(await accounts.register(email, PASSWORD))
        logins = [accounts.login(email, PASSWORD) for _ in range(3)]
        *outcomes, _ = await asyncio.gather(*logins, other_worker.set_password(email, OTHER))
        assert await live_families(database, session) == 0
        refused = [outcome for outcome in outcomes if isinstance(outcome, Problem)]
        assert {code(outcome) for outcome in refused} <= {"invalid_credentials"}


async def test_a_new_password_has_to_be_good_and_the_account_has_to_be_there(
    accounts: Accounts, session: Session, email: Email
) -> None:
    weak = await accounts.set_password(email, "password1")
    assert isinstance(weak, Problem)
    assert weak.code == "password_too_common"
    assert await accounts.set_password(an_email(), OTHER) is None
    good(await accounts.login(email, PASSWORD))


async def test_another_role_counts_from_the_next_session_on(
    accounts: Accounts, of_owner: Accounts, settings: Settings, session: Session, email: Email
) -> None:
    changed = await of_owner.set_role(email, "operator")
    assert changed is not None
    assert changed.role == "operator"
    tokens = Tokens(settings)
    assert tokens.verify(session.access_token) == Caller(session.user.id, "user")
    session = good(await accounts.refresh(session.refresh_token))
    assert tokens.verify(session.access_token) == Caller(session.user.id, "operator")
    assert session.user.role == "operator"
    assert await of_owner.set_role(an_email(), "operator") is None


async def test_accounts_are_listed_the_oldest_first(
    accounts: Accounts, of_owner: Accounts, database: Database
) -> None:
    made = [await of_owner.create(an_email(), PASSWORD, "operator") for _ in range(3)]
    total, everybody = await accounts.first(1_000_000)
    assert everybody[-3:] == made
    assert total == len(everybody)
    assert await accounts.first(2) == (total, everybody[:2])


# When PostgreSQL is away.


async def test_without_postgresql_there_are_no_sessions_and_access_tokens_count_on(
    settings: Settings, passwords: Passwords, email: Email
) -> None:
    database = Database("postgresql://127.0.0.1:1/mercuria")
    tokens = Tokens(settings)
    away = Accounts(database, passwords, tokens, settings)
    for attempt in (
        away.register(email, PASSWORD),
        away.login(email, PASSWORD),
        away.refresh("token"),
        away.logout("token"),
    ):
        with pytest.raises(DatabaseUnavailable):
            await attempt
    caller = Caller(uuid4(), "user")
    assert tokens.verify(tokens.issue(caller)) == caller
    await database.close()
