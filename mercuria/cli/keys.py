"""`mercuria keys`: the keys that sign access tokens."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import click
from filelock import FileLock
from msgspec import UNSET
from rich.table import Table

from mercuria.auth.token_keys import Jwk, JwkSet, KeysError, new_key, parse_keys
from mercuria.cli.data_dir import data_dir_option, with_data_dir
from mercuria.cli.failures import AnswerIsNo
from mercuria.cli.options import examples, json_option
from mercuria.cli.printable import printable
from mercuria.cli.showing import show_json, show_table
from mercuria.config import current_settings
from mercuria.embedded.files import PRIVATE, write_atomically


class KeyFileError(Exception):
    """The file of the keys cannot be read or written; the message says why."""


@click.group()
@data_dir_option
def keys() -> None:
    """Create, list and rotate the keys that sign access tokens."""


@keys.command("list")
@with_data_dir
@json_option
def list_(as_json: bool) -> None:
    """List the keys; the last one signs.

    With --json, the public keys are a JWK set.
    """
    found = _read()
    if as_json:
        show_json(_public(found))
        return
    table = Table()
    for column in ("key", "made", "state"):
        table.add_column(column, no_wrap=True)
    for key in found.keys:
        table.add_row(printable(key.kid), _time(key.iat), _state(key))
    show_table(table)


@keys.command()
@with_data_dir
@json_option
def create(as_json: bool) -> None:
    """Make a first key, where `mercuria up` has made none.

    The file is MERCURIA_TOKEN_KEYS_FILE; one that is there already stays as it is.
    """
    path = current_settings().token_keys_file
    with _alone():
        if path.exists():
            raise AnswerIsNo(f"{path} is there already; `mercuria keys rotate` brings a new key into use")
        new = JwkSet((new_key(int(time.time())),))
        write_atomically(path, new.as_text(), PRIVATE)
    _show_signer(new, as_json)


@keys.command(epilog=examples("mercuria keys rotate", "mercuria keys rotate --drop-old"))
@with_data_dir
@click.option(
    "--drop-old", is_flag=True, help="Make all access tokens of before invalid at once; refresh tokens stay."
)
@json_option
def rotate(drop_old: bool, as_json: bool) -> None:
    """Sign with a new key from now on.

    The old ones stay until the last token that they have signed has expired. Running workers take the new file.
    """
    now_s = int(time.time())

    def changed(old: JwkSet) -> JwkSet:
        return (
            JwkSet((new_key(now_s),))
            if drop_old
            else old.rotated(now_s, current_settings().access_token_minutes * 60)
        )

    new = _change(changed)
    _show_signer(new, as_json)


def _show_signer(found: JwkSet, as_json: bool) -> None:
    if as_json:
        show_json(_public(found))
    else:
        click.echo(f"The key {found.keys[-1].kid} signs from now on.")


def _public(found: JwkSet) -> dict[str, list[dict[str, str]]]:
    return {"keys": [key.public() for key in found.keys]}


def _change(changed: Callable[[JwkSet], JwkSet]) -> JwkSet:
    """Replace the file, while no other process does."""
    with _alone():
        new = changed(_read())
        write_atomically(current_settings().token_keys_file, new.as_text(), PRIVATE)
    return new


@contextmanager
def _alone() -> Iterator[None]:
    """Let only the block change the file; report an error if the file cannot be written."""
    path = current_settings().token_keys_file
    try:
        with FileLock(f"{path}.lock", mode=PRIVATE):
            yield
    except OSError as error:
        raise KeyFileError(f"{path} cannot be written: {error.strerror}") from error


def _read() -> JwkSet:
    settings = current_settings()
    try:
        return parse_keys(settings.token_keys_file.read_bytes())
    except (OSError, KeysError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise KeyFileError(f"the keys in {settings.token_keys_file} cannot be read: {reason}") from error


def _state(key: Jwk) -> str:
    return "signs" if key.exp is UNSET else f"retired, good until {_time(key.exp)}"


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
