"""The commands that bring wallets into a new installation: each wallet decides them to be what it was."""

import json
import subprocess
from pathlib import Path
from uuid import UUID, uuid4

import psycopg2

from mercuria.domain.commands import Position
from mercuria.domain.parsing import read_command
from mercuria.domain.wallet import Wallet, decide, evolve
from mercuria.embedded.postgres import BINARIES
from tests.projections.conftest import as_owner

SCRIPT = Path(__file__).parents[2] / "deploy" / "carry-over.sql"
PSQL = (str(BINARIES / "psql"), "--no-psqlrc", "--quiet", "--tuples-only", "--no-align")
METADATA = {"label": 'Grüße, "Zoe"\nand \\ all', "of": "1"}
LARGEST = 2**63 - 1
KEPT = [
    ("EUR", 250_000, 0, "open", METADATA),
    ("CZK", -4_000, 5_000, "open", {}),
    ("CZK", -5_000, 5_000, "frozen", {}),
    ("JPY", LARGEST, LARGEST, "frozen", METADATA),
    ("EUR", 0, 0, "open", {}),
    ("EUR", -300, 100, "frozen", {}),
    ("EUR", -LARGEST, 0, "open", {}),
]
CLOSED = ("EUR", 0, 0, "closed", {})


def insert(url: str, rows: list[tuple[str, int, int, str, dict[str, str]]]) -> dict[UUID, UUID]:
    """Write wallets as PostgreSQL has them; return their owners by their ids."""
    owners = {uuid4(): uuid4() for _ in rows}
    connection = psycopg2.connect(as_owner(url))
    with connection, connection.cursor() as cursor:
        for (id_, owner), (currency, balance, limit, status, metadata) in zip(
            owners.items(), rows, strict=True
        ):
            cursor.execute(
                "INSERT INTO wallets VALUES (%s, %s, %s, %s, %s, %s, 7, %s, now(), now(), %s)",
                (
                    *map(str, (id_, owner)),
                    currency,
                    balance,
                    limit,
                    status,
                    json.dumps(metadata),
                    str(uuid4()),
                ),
            )
    connection.close()
    return owners


def commands(url: str) -> list[str]:
    """Return what the script says, as the runbook calls it."""
    said = subprocess.run([*PSQL, "--file", SCRIPT, url], check=True, capture_output=True, text=True).stdout
    return said.splitlines()


def test_wallets_are_opened_again_as_they_were(url: str) -> None:
    owners = insert(url, [*KEPT, CLOSED])
    lines = commands(url)
    wallets: dict[UUID, Wallet | None] = {}
    for offset, line in enumerate(lines):
        command = read_command(line.encode())
        before = wallets.get(command.wallet_id)
        event = decide(command, before, Position(0, offset, 0))  # type: ignore[arg-type]
        wallets[command.wallet_id] = evolve(before, event, 0)
        assert wallets[command.wallet_id] != before, event
    was = {id_: (owner, *row) for (id_, owner), row in zip(owners.items(), KEPT, strict=False)}
    told = {
        id_: (each.owner_id, each.currency, each.balance, each.overdraft_limit, each.status, each.metadata)
        for id_, each in wallets.items()
        if each is not None
    }
    assert told == was


def test_a_command_has_the_same_id_each_time_and_another_one_than_all_others(url: str) -> None:
    insert(url, KEPT)
    lines = commands(url)
    assert lines == commands(url)
    assert len({json.loads(line)["id"] for line in lines}) == len(lines) == 18
