"""`mercuria ledger`: what is right is found to be right, whatever was changed is found, and the books can be read."""

import csv
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from mercuria.domain.ledger import NO_HASH, hash_after
from mercuria.embedded.stack import Stack
from tests.embedded.conftest import clean_environ
from tests.harness.audit.projections import audit_projections
from tests.harness.chaos.kafka.generator import EFFECTIVE_AT

TRIGGERS = ("ledger_entries_are_final", "ledger_entries_balance")


def run(stack: Stack, *arguments: str, stdout: Any = subprocess.PIPE, text: bool = True) -> Any:
    """Run a command of `mercuria ledger`."""
    command = [sys.executable, "-m", "mercuria", "ledger", *arguments]
    environ = clean_environ() | stack.env
    return subprocess.run(
        command, env=environ, stdout=stdout, stderr=subprocess.PIPE, text=text, check=False, timeout=120
    )


def bean_check(file: Path) -> subprocess.CompletedProcess[str]:
    """Let beancount's own checker read a file."""
    command = [str(Path(sys.executable).parent / "bean-check"), str(file)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@contextmanager
def tampered(stack: Stack) -> Iterator[Any]:
    """Let the block change the ledger as the owner, with its triggers off; afterwards, all is as it was."""
    with (
        closing(psycopg2.connect(stack.env["MERCURIA_DATABASE_OWNER"])) as connection,
        connection.cursor() as cursor,
    ):
        connection.autocommit = True
        cursor.execute("CREATE TABLE kept AS SELECT * FROM ledger_entries")
        _switch(cursor, "DISABLE")
        try:
            yield cursor
        finally:
            cursor.execute("DELETE FROM ledger_entries")
            cursor.execute("INSERT INTO ledger_entries SELECT * FROM kept")
            _switch(cursor, "ENABLE ALWAYS")
            cursor.execute("DROP TABLE kept")


def _switch(cursor: Any, how: str) -> None:
    for trigger in TRIGGERS:
        cursor.execute(f"ALTER TABLE ledger_entries {how} TRIGGER {trigger}")


def longest_chain(cursor: Any) -> tuple[int, int]:
    """Return the partition that has most entries, and how many."""
    cursor.execute(
        "SELECT partition, count(*) FROM ledger_entries GROUP BY 1 ORDER BY 2 DESC LIMIT 1",
    )
    partition, count = cursor.fetchone()
    return partition, count


def change_an_amount(cursor: Any, partition: int, _count: int) -> int:
    """Make both sides of a transaction larger."""
    cursor.execute(
        "UPDATE ledger_entries SET amount = amount + 1 WHERE partition = %s AND sequence IN (5, 6)",
        [partition],
    )
    return 5


def delete_an_entry(cursor: Any, partition: int, _count: int) -> int:
    """Take one entry away."""
    cursor.execute("DELETE FROM ledger_entries WHERE partition = %s AND sequence = 7", [partition])
    return 7


def swap_two_entries(cursor: Any, partition: int, _count: int) -> int:
    """Let two credits change places."""
    for old, new in ((8, -8), (10, 8), (-8, 10)):
        cursor.execute(
            "UPDATE ledger_entries SET sequence = %s WHERE partition = %s AND sequence = %s",
            [new, partition, old],
        )
    return 8


def drop_the_last(cursor: Any, partition: int, count: int) -> int:
    """Take the last ten entries away."""
    cursor.execute(
        "DELETE FROM ledger_entries WHERE partition = %s AND sequence > %s", [partition, count - 10]
    )
    return count - 9


def change_and_hash_again(cursor: Any, partition: int, _count: int) -> int:
    """Change an amount, and make all hashes anew, so that the chain itself is whole."""
    change_an_amount(cursor, partition, _count)
    cursor.execute(
        "SELECT sequence, transaction_id::text, kind::text, COALESCE(wallet_id::text, external), direction::text,"
        " amount, currency, balance_after, wallet_version,"
        " round(extract(epoch FROM occurred_at) * 1000)::bigint,"
        """ to_char(effective_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')"""
        " FROM ledger_entries WHERE partition = %s ORDER BY sequence",
        [partition],
    )
    previous = NO_HASH
    for sequence, *content in cursor.fetchall():
        previous = hash_after(previous, partition, sequence, *content)
        cursor.execute(
            "UPDATE ledger_entries SET hash = %s WHERE partition = %s AND sequence = %s",
            [previous, partition, sequence],
        )
    return 5


def forge_a_pair(cursor: Any, partition: int, count: int) -> int:
    """Enter a deposit that never was, behind the last entry, with the right hashes."""
    cursor.execute(
        "SELECT hash FROM ledger_entries WHERE partition = %s AND sequence = %s", [partition, count]
    )
    previous = bytes(cursor.fetchone()[0])
    id_, wallet = "00000000-0000-0000-0000-00000000000f", "00000000-0000-0000-0000-00000000000e"
    for sequence, direction, account in (
        (count + 1, "debit", "external:deposits"),
        (count + 2, "credit", wallet),
    ):
        is_wallet = account == wallet
        balance = 5 if is_wallet else None
        content = (id_, "deposit", account, direction, 5, "EUR", balance, balance, 1_800_000_000_000)
        previous = hash_after(previous, partition, sequence, *content)
        cursor.execute(
            "INSERT INTO ledger_entries VALUES"
            " (%s, %s, %s, 'deposit', %s, %s, %s, 5, 'EUR', %s, %s, to_timestamp(1800000000), %s)",
            [
                partition,
                sequence,
                id_,
                direction,
                wallet if is_wallet else None,
                None if is_wallet else account,
                balance,
                balance,
                previous,
            ],
        )
    return count + 1


async def test_a_ledger_that_nobody_changed_is_right(quiet: Stack) -> None:
    done = run(quiet, "verify", "--json")
    report = json.loads(done.stdout)
    assert (done.returncode, report["findings"], report["sentences"]) == (0, 0, [])
    assert report["entries"] == (await audit_projections(quiet)).entries > 0
    assert report["debits"] == report["credits"]
    again = run(quiet, "verify", "--resume")
    assert again.returncode == 0
    assert again.stdout == f"0 entries in {report['chains']} chains are right.\n"


@pytest.mark.parametrize(
    "tamper",
    [
        change_an_amount,
        delete_an_entry,
        swap_two_entries,
        drop_the_last,
        change_and_hash_again,
        forge_a_pair,
    ],
)
async def test_whatever_was_changed_is_found_and_the_first_entry_is_named(quiet: Stack, tamper: Any) -> None:
    with tampered(quiet) as cursor:
        partition, count = longest_chain(cursor)
        first = tamper(cursor, partition, count)
        done = run(quiet, "verify", "--json")
    report = json.loads(done.stdout)
    assert done.returncode == 1
    assert report["sentences"][0].startswith(f"Entry {partition}-{first}"), report["sentences"]


def test_what_cannot_be_checked_is_never_said_to_be_wrong(quiet: Stack) -> None:
    kept = Path(quiet.env["MERCURIA_DATA_DIR"]) / "ledger-verified.json"
    kept.write_text("{")
    done = run(quiet, "verify", "--resume")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(
        f"mercuria: {kept} cannot be used: it does not hold what a verification writes;"
    )
    with open("/dev/full", "w") as full:
        done = run(quiet, "verify", stdout=full)
    assert (done.returncode, done.stderr) == (
        2,
        "mercuria: standard output cannot be written: No space left on device.\n",
    )
    # What cannot be kept for the next time takes nothing from what was found.
    kept.unlink(missing_ok=True)
    kept.mkdir()
    try:
        done = run(quiet, "verify")
        assert done.returncode == 0 and done.stdout.endswith(" are right.\n")
        assert done.stderr.startswith("mercuria: the next --resume cannot go on from here: ")
    finally:
        kept.rmdir()


def test_no_finding_holds_what_a_terminal_obeys(quiet: Stack) -> None:
    with tampered(quiet) as cursor:
        partition, _ = longest_chain(cursor)
        cursor.execute(
            "ALTER TABLE ledger_entries DROP CONSTRAINT IF EXISTS ledger_entries_external_check;"
            "UPDATE ledger_entries SET currency = E'\\033[J' WHERE partition = %s AND sequence = 5",
            [partition],
        )
        done = run(quiet, "verify")
        as_json = run(quiet, "verify", "--json")
    assert (done.returncode, as_json.returncode) == (1, 1)
    assert "\x1b" not in done.stdout + as_json.stdout and r"\x1b[J" in done.stdout


def test_a_link_and_a_device_stay_what_they_are_when_the_books_are_written(
    quiet: Stack, tmp_path: Path
) -> None:
    link, target = tmp_path / "link", tmp_path / "books.csv"
    target.write_text("before")
    target.chmod(0o604)
    link.symlink_to(target)
    (tmp_path / "null").symlink_to("/dev/null")
    for name in ("link", "null"):
        done = run(quiet, "export", "--format", "csv", "--output", str(tmp_path / name))
        assert (done.returncode, done.stderr) == (0, "")
    assert link.is_symlink() and (tmp_path / "null").is_symlink() and Path("/dev/null").is_char_device()
    assert (target.stat().st_mode & 0o777, target.read_text()[:10]) == (0o604, "partition,")
    assert target.read_bytes() == run(quiet, "export", "--format", "csv", "--output", "-", text=False).stdout


async def test_beancount_accepts_what_is_exported(quiet: Stack, tmp_path: Path) -> None:
    file = tmp_path / "books.beancount"
    done = run(quiet, "export", "--format", "beancount", "--output", str(file))
    assert done.returncode == 0, done.stderr
    checked = bean_check(file)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
    assert file.read_text("utf-8").count(" * ") == (await audit_projections(quiet)).completed
    assert f'\n  effective: "{EFFECTIVE_AT}"\n' in file.read_text("utf-8")


async def test_the_spreadsheet_has_every_entry_and_balances(quiet: Stack) -> None:
    done = run(quiet, "export", "--format", "csv")
    rows = list(csv.DictReader(StringIO(done.stdout)))
    assert len(rows) == (await audit_projections(quiet)).entries
    assert {row["effective_at"] for row in rows} == {"", EFFECTIVE_AT}
    sums: Counter[tuple[str, str]] = Counter()
    for row in rows:
        sums[row["currency"], row["direction"]] += int(row["amount"])
    for currency in {currency for currency, _ in sums}:
        assert sums[currency, "debit"] == sums[currency, "credit"]
