"""`mercuria rebuild` on a whole stack under load: the same rows come back, and balances can be read meanwhile."""

import asyncio
import json
import subprocess
import sys
from contextlib import closing
from typing import Any

import psycopg2
import pytest

from mercuria.embedded.stack import Stack
from mercuria.projections.rebuild import RebuildError, Tables
from tests.embedded.conftest import clean_environ
from tests.projections.test_stack import assert_all_is_there, run_on, tables_of


def ledger_of(stack: Stack) -> dict[tuple[int, int], bytes]:
    """Return the hash of each entry."""
    with (
        closing(psycopg2.connect(stack.env["MERCURIA_DATABASE"])) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("SELECT partition, sequence, hash FROM ledger_entries")
        return {(partition, sequence): bytes(digest) for partition, sequence, digest in cursor}


def rebuild(stack: Stack, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    command = [sys.executable, "-m", "mercuria", "rebuild", "--yes", *words]
    environ = clean_environ() | stack.env
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=120)


def test_only_the_owner_may(live_stack: Stack) -> None:
    before = ledger_of(live_stack)
    with pytest.raises(RebuildError, match="MERCURIA_DATABASE_OWNER"):
        Tables(live_stack.env["MERCURIA_DATABASE"]).empty()
    assert ledger_of(live_stack).items() >= before.items()


async def test_a_rebuild_under_load_gives_the_same_rows(live_stack: Stack) -> None:
    before = await tables_of(live_stack)
    entries = ledger_of(live_stack)
    done: list[subprocess.CompletedProcess[str]] = []

    async def rebuilt(run: Any) -> None:
        await run.wait_for_answers(500)
        done.append(await asyncio.to_thread(rebuild, live_stack))

    outcome = await run_on(live_stack).run(rebuilt)
    (run,) = done
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("Rebuilt from ")
    assert outcome.audit.violations == []
    await assert_all_is_there(live_stack)
    after = await tables_of(live_stack)
    assert after.events >= before.events
    assert ledger_of(live_stack).items() >= entries.items()
    assert Tables(live_stack.env["MERCURIA_DATABASE_OWNER"]).counts()["ledger_entries"] >= len(entries)


def test_the_figures_of_a_rebuild_are_json(live_stack: Stack) -> None:
    run = rebuild(live_stack, "--json")
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert found.keys() == {"records", "done", "seconds", "rows"}
    assert found["done"] == found["records"] and found["rows"].keys() >= {"wallets", "ledger_entries"}
