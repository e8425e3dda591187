"""The schema: what the repository says of it, and what it lets nobody do."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg2
import pytest
from psycopg2.errors import CheckViolation, InsufficientPrivilege, RestrictViolation

from mercuria.embedded.postgres import Postgres
from tests.projections.conftest import as_owner
from tests.projections.schema import FILE, schema_of

DEBIT = (
    "(0, {first}, '00000000-0000-0000-0000-000000000001', 'deposit', 'debit', NULL, 'external:deposits', 5, 'EUR',"
    " NULL, NULL, '2026-01-01Z', sha256('a'))"
)
CREDIT = (
    "(0, {second}, '00000000-0000-0000-0000-000000000001', 'deposit', 'credit',"
    " '00000000-0000-0000-0000-000000000002', NULL, {amount}, '{currency}', 5, 1, '2026-01-01Z', sha256('b'))"
)


def insertion(first: int = 1, amount: int = 5, currency: str = "EUR") -> str:
    """Return a statement that enters a deposit."""
    rows = DEBIT.format(first=first), CREDIT.format(second=first + 1, amount=amount, currency=currency)
    return f"INSERT INTO ledger_entries VALUES {', '.join(rows)}"


@pytest.fixture
def application(url: str) -> Iterator[Any]:
    """Return a cursor of the workers' role, with one deposit in the ledger."""
    with closing(psycopg2.connect(url)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(insertion())
            yield cursor


@pytest.fixture
def owner(url: str, application: Any) -> Iterator[Any]:
    """Return a cursor of the tables' owner, with one deposit in the ledger."""
    with closing(psycopg2.connect(as_owner(url))) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            yield cursor


CHANGES = [
    "UPDATE ledger_entries SET amount = 6",
    "DELETE FROM ledger_entries",
    "TRUNCATE ledger_entries",
]


USER = "INSERT INTO users VALUES (gen_random_uuid(), 'z@example.com', 'z@example.com', '-', now(), %s)"


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE users SET role = 'operator'",
        "UPDATE users SET id = gen_random_uuid()",
        "UPDATE users SET email = 'max@example.com'",
        "UPDATE users SET created_at = now()",
        "INSERT INTO users VALUES (gen_random_uuid(), 'o@example.com', 'o@example.com', '-', now(), 'operator')",
        "ALTER TABLE users DISABLE ROW LEVEL SECURITY",
        "UPDATE wallets SET owner_id = gen_random_uuid()",
        "UPDATE wallets SET id = gen_random_uuid()",
        "UPDATE wallets SET currency = 'USD'",
        "UPDATE wallets SET opened_by = gen_random_uuid()",
        "UPDATE wallets SET created_at = now()",
        "UPDATE wallets SET metadata = '{}'",
        "DELETE FROM wallets",
    ],
)
def test_the_role_of_workers_changes_no_more_than_workers_do(application: Any, statement: str) -> None:
    with pytest.raises(InsufficientPrivilege):
        application.execute(statement)


def test_the_role_of_workers_makes_users_and_the_owner_gives_them_roles(application: Any, owner: Any) -> None:
    application.execute(f"{USER} ON CONFLICT (email_key) DO NOTHING RETURNING id", ("user",))
    (id_,) = application.fetchone()
    application.execute("UPDATE users SET password_hash = 'x', password_changed_at = now()")
    application.execute("SELECT FROM users WHERE id = %s FOR SHARE", (id_,))
    owner.execute("UPDATE users SET role = 'operator' WHERE id = %s", (id_,))
    application.execute("UPDATE users SET password_hash = 'y' WHERE id = %s", (id_,))
    assert application.rowcount == 1, "an operator's password can be hashed anew"


def test_the_repository_has_the_schema_that_the_migrations_make(postgres: Postgres) -> None:
    assert schema_of(postgres.owner_url) == FILE.read_text("utf-8"), "run `make schema`, and look at the diff"


@pytest.mark.parametrize("change", CHANGES)
def test_the_workers_role_may_not_change_the_ledger(application: Any, change: str) -> None:
    with pytest.raises(InsufficientPrivilege):
        application.execute(change)


@pytest.mark.parametrize("change", CHANGES)
def test_the_ledger_refuses_to_be_changed_by_its_owner(owner: Any, change: str) -> None:
    with pytest.raises(RestrictViolation, match="append-only"):
        owner.execute(change)


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE ledger_entries DISABLE TRIGGER ALL",
        "DROP TABLE ledger_entries",
        "DROP TRIGGER ledger_entries_are_final ON ledger_entries",
        "ALTER TABLE ledger_entries DROP COLUMN hash",
        "CREATE TABLE mine ()",
        "DELETE FROM wallet_events",
        "UPDATE wallet_events SET balance = 0",
        "TRUNCATE transactions",
        "DELETE FROM positions",
    ],
)
def test_the_workers_role_owns_nothing(application: Any, statement: str) -> None:
    with pytest.raises(InsufficientPrivilege):
        application.execute(statement)


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        (insertion(3, amount=6), "does not balance"),
        (insertion(3, currency="CZK"), "does not balance"),
        (f"INSERT INTO ledger_entries VALUES {DEBIT.format(first=3)}", "does not balance"),
        (insertion(5), "does not go on where it ended"),
        (insertion(-1), "violates check constraint"),
    ],
)
def test_entries_that_do_not_fit_are_refused(application: Any, statement: str, says: str) -> None:
    with pytest.raises(CheckViolation, match=says):
        application.execute(statement)


def test_what_fits_is_entered(application: Any) -> None:
    application.execute(insertion(3))
    application.execute("SELECT count(*), sum(amount) FROM ledger_entries")
    assert application.fetchone() == (4, 20)
