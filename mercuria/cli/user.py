"""`mercuria user`: accounts of people. It also creates the first operator."""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from pwd import getpwuid
from typing import NoReturn, TypeVar, cast

import click
import msgspec
from psycopg2.errors import InsufficientPrivilege, UndefinedTable
from rich.table import Table

from mercuria.auth.accounts import Accounts, User
from mercuria.auth.emails import Email, parse_email
from mercuria.auth.passwords import Passwords, is_text, parse_line
from mercuria.auth.security_log import Event, Pseudonyms
from mercuria.auth.tokens import ROLES, Role, Tokens
from mercuria.cli.data_dir import data_dir_option, with_data_dir
from mercuria.cli.failures import EXIT_NO, EXIT_UNKNOWN, say
from mercuria.cli.options import MOST, examples, json_option
from mercuria.cli.printable import printable
from mercuria.cli.security_file import append
from mercuria.cli.showing import show_json, show_table
from mercuria.config import SettingError, current_settings
from mercuria.http.problems import MEANINGS, Problem
from mercuria.postgres.database import Database, DatabaseUnavailable

T = TypeVar("T")


@click.group()
@data_dir_option
def user() -> None:
    """Create and list accounts, and set their roles and passwords."""


@user.command(
    epilog=examples(
        "mercuria user create zoe@example.com --role operator",
        "mercuria user create zoe@example.com <password",
    )
)
@click.argument("email")
@with_data_dir
@click.option("--role", type=click.Choice(ROLES), default="user", show_default=True, help="What it may do.")
@json_option
def create(email: str, role: str, as_json: bool) -> None:
    """Make an account.

    The password is asked for on a terminal; else it is the first line of the input.
    """
    parsed, password = _email(email), _password()
    made = _done(
        lambda accounts: accounts.create(parsed, password, cast(Role, role)), as_owner=role != "user"
    )
    _record(Event.ACCOUNT_CREATED, made)
    _show(made, f"Made the {made.role} {printable(made.email)} with the id {made.id}.", as_json)


@user.command("list")
@with_data_dir
@click.option(
    "--limit", type=click.IntRange(1, MOST), default=50, show_default=True, help="How many at most."
)
@json_option
def list_(limit: int, as_json: bool) -> None:
    """List accounts, the oldest first."""
    total, users = _done(lambda accounts: accounts.first(limit))
    if as_json:
        show_json(msgspec.to_builtins(users))
        return
    if not users:
        click.echo("There are no accounts.")
        return
    show_table(_table(users))
    if total > len(users):
        click.echo(f"{len(users):,} of {total:,} accounts; --limit shows more.")


@user.command("set-role", epilog=examples("mercuria user set-role zoe@example.com operator"))
@click.argument("email")
@click.argument("role", type=click.Choice(ROLES))
@with_data_dir
@json_option
def set_role(email: str, role: str, as_json: bool) -> None:
    """Give an account another role.

    It counts from the next access token on. Only the role that owns PostgreSQL's tables may change roles
    (MERCURIA_DATABASE_OWNER).
    """
    parsed = _email(email)
    changed = _done(lambda accounts: accounts.set_role(parsed, cast(Role, role)), as_owner=True)
    if changed is None:
        _fail(f"there is no account {parsed.shown}", EXIT_NO)
    _record(Event.ROLE_CHANGED, changed)
    _show(changed, f"{printable(changed.email)} is {changed.role} now.", as_json)


@user.command("set-password", epilog=examples("mercuria user set-password zoe@example.com"))
@click.argument("email")
@with_data_dir
@json_option
def set_password(email: str, as_json: bool) -> None:
    """Give an account another password, and end its sessions.

    The password is asked for on a terminal; else it is the first line of the input.
    """
    parsed, password = _email(email), _password()
    changed = _done(lambda accounts: accounts.set_password(parsed, password))
    if changed is None:
        _fail(f"there is no account {parsed.shown}", EXIT_NO)
    _record(Event.PASSWORD_CHANGED, changed)
    sentence = f"{printable(changed.email)} has a new password, and has to log in again."
    _show(changed, sentence, as_json)


def _show(account: User, sentence: str, as_json: bool) -> None:
    """Print the result for an account as a sentence, or the account as JSON."""
    if as_json:
        show_json(msgspec.to_builtins(account))
    else:
        click.echo(sentence)


def _done(work: Callable[[Accounts], Awaitable[T | Problem]], *, as_owner: bool = False) -> T:
    """Return the result of `work`. A refusal prints a sentence with exit code 1, a failure with exit code 2.

    Args:
        as_owner: whether to connect as the role that owns the tables: the workers' role may not change roles.
    """
    settings = current_settings()
    try:
        outcome = asyncio.run(
            _with_accounts(work, settings.database_owner if as_owner else settings.database)
        )
    except DatabaseUnavailable as error:
        _fail(str(error), EXIT_UNKNOWN)
    except UndefinedTable:
        _fail("the database has no accounts yet: run `mercuria migrate`", EXIT_UNKNOWN)
    except InsufficientPrivilege:
        _fail(
            "only the role that owns the tables may make operators and change roles:"
            " set MERCURIA_DATABASE_OWNER to its URL",
            EXIT_UNKNOWN,
        )
    if isinstance(outcome, Problem):
        _fail(_sentence(outcome), EXIT_NO)
    return outcome


async def _with_accounts(work: Callable[[Accounts], Awaitable[T]], url: str) -> T:
    settings = current_settings()
    database = Database(url)
    passwords = Passwords(settings.bcrypt_cost, settings.password_min_characters)
    try:
        return await work(Accounts(database, passwords, Tokens(settings), settings))
    finally:
        passwords.close()
        await database.close()


def _record(event: Event, account: User) -> None:
    """Log a change of an account in the data directory's logs; print a warning if that fails."""
    settings = current_settings()
    pseudonyms = Pseudonyms(settings.leg_key)
    email = parse_email(account.email)
    assert isinstance(email, Email), "it was parsed before it was kept"
    try:
        append(
            settings.data_dir,
            event,
            account=pseudonyms.of_email(email),
            user=pseudonyms.of_user(account.id),
            role=account.role,
            by=_typist(),
        )
    except (OSError, SettingError) as error:
        say(f"warning: the security event {event} is not logged: {error}")


def _typist() -> str:
    """Return the operating system account that runs the command."""
    try:
        return getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _email(text: str) -> Email:
    email = parse_email(text)
    if isinstance(email, Problem):
        _fail(f"'{text}' is no e-mail address: {_sentence(email)}", EXIT_UNKNOWN)
    return email


def _password() -> str:
    """Prompt for a password, hidden.

    It never stands on a command line, which all users of the machine can read.
    """
    try:
        password = _asked() if sys.stdin.isatty() else parse_line(sys.stdin.buffer.readline())
    except UnicodeDecodeError:
        password = None
    if password is None or not is_text(password):
        _fail("the password is not text in UTF-8, or has control characters in it", EXIT_UNKNOWN)
    return password


def _asked() -> str:
    return str(click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))


def _sentence(problem: Problem) -> str:
    return (problem.detail or MEANINGS[problem.code].detail).rstrip(".")


def _fail(sentence: str, code: int) -> NoReturn:
    say(sentence)
    sys.exit(code)


def _table(users: list[User]) -> Table:
    table = Table()
    table.add_column("account", no_wrap=True)
    table.add_column("e-mail", overflow="fold")
    table.add_column("role", no_wrap=True)
    table.add_column("since", no_wrap=True)
    for each in users:
        table.add_row(
            str(each.id), printable(each.email), each.role, each.created_at.strftime("%Y-%m-%d %H:%M:%SZ")
        )
    return table
