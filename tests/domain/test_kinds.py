"""Every kind of transaction goes through everything that tells kinds apart: rows, chains, documents, the console."""

import re
from pathlib import Path
from typing import get_args

import pytest
from msgspec import json, structs
from msgspec.structs import replace

from mercuria.cli.ledger.chain import Chain, Findings, Row
from mercuria.cli.ledger.export import account_name
from mercuria.domain.commands import KINDS, Credit, Movement, Refund
from mercuria.domain.events import BalanceUpdated, CommandRejected
from mercuria.domain.kinds import ACCOUNTS, Kind
from mercuria.domain.ledger import Entry, entries_of
from mercuria.domain.parsing import Unreadable, read_command
from mercuria.domain.transaction import TransactionCompleted, ended, refused_transaction
from mercuria.domain.transfer import react
from mercuria.domain.wallet import Wallet, decide
from mercuria.projections.checkpoints import Checkpoint
from mercuria.projections.rows import SourceEvent
from mercuria.projections.wallets.rows import Rows

from .faults import acceptable
from .story import NOW, STRANGER, a_wallet

ROOT = Path(__file__).parents[2]
TIME_MS = 1_790_000_000_123
CHANGE = 8
"""The column of rows of events that has the change of the balance."""

MOVEMENTS = {str(struct.__struct_config__.tag): struct for struct in get_args(Movement)}
EXTERNAL = [account for pair in ACCOUNTS.values() for account in pair if account is not None]


def moved(tag: str) -> tuple[BalanceUpdated, Wallet]:
    """Return the event of an acceptable command, and the wallet before it."""
    command, wallet = acceptable()[tag]
    event = decide(command, wallet, NOW)
    assert isinstance(event, BalanceUpdated) and wallet is not None
    return event, wallet


def completed(tag: str) -> TransactionCompleted:
    """Return the event for the completed transaction of an acceptable command."""
    event, _ = moved(tag)
    if event.transaction_status == "pending":
        leg = react(acceptable()[tag][0], event, NOW)
        assert isinstance(leg, Credit)
        event = decide(leg, replace(a_wallet(), id=leg.wallet_id), NOW)
        assert isinstance(event, BalanceUpdated)
    found = ended(event, 1)
    assert isinstance(found, TransactionCompleted)
    return found


def row_of(entry: Entry) -> Row:
    """Return an entry as PostgreSQL has it."""
    values = structs.asdict(entry) | {
        "transaction_id": str(entry.transaction_id),
        "effective_at": entry.effective_at or None,
        "hash": bytes.fromhex(entry.hash),
    }
    return Row(**{name: values[name] for name in Row._fields})


def test_every_kind_has_a_command_and_its_accounts() -> None:
    assert ACCOUNTS.keys() == set(get_args(Kind)) == set(KINDS.values())
    assert KINDS.keys() == {*MOVEMENTS.values(), Credit, Refund}


@pytest.mark.parametrize("tag", MOVEMENTS)
def test_the_row_of_an_event_has_the_change_of_the_balance(tag: str) -> None:
    event, wallet = moved(tag)
    rows = Rows({0: Checkpoint()})
    rows.take(0, [SourceEvent(event, TIME_MS, 0)])
    assert rows.payload().events.split("\t")[CHANGE] == str(event.balance - wallet.balance)


@pytest.mark.parametrize("tag", MOVEMENTS)
def test_the_entries_of_a_transaction_pass_the_check_of_the_ledger(tag: str) -> None:
    transaction, findings = completed(tag), Findings()
    entries = entries_of(transaction, 0, TIME_MS, sequence=0, previous=bytes(32))
    chain = Chain(0, findings)
    chain.take(map(row_of, entries), {})
    chain.end()
    assert findings.sentences == []
    sides = (transaction.from_wallet, transaction.to_wallet)
    wallets = [
        str(side.wallet_id) if side else account
        for side, account in zip(sides, ACCOUNTS[transaction.kind], strict=True)
    ]
    assert [entry.account for entry in entries] == wallets


@pytest.mark.parametrize("tag", MOVEMENTS)
def test_a_refused_transaction_names_no_owner_but_the_wallets(tag: str) -> None:
    command, wallet = acceptable()[tag]
    assert wallet is not None
    frozen = replace(wallet, status="frozen")
    for actor_id, role in ((wallet.owner_id, "user"), (STRANGER, "user"), (STRANGER, "operator")):
        event = decide(replace(command, actor_id=actor_id, actor_role=role), frozen, NOW)
        assert isinstance(event, CommandRejected)
        refused = refused_transaction(event, NOW)
        assert refused is not None
        assert {refused.from_owner_id, refused.to_owner_id} <= {wallet.owner_id, None}
        assert (refused.from_wallet_id or refused.to_wallet_id) == wallet.id


@pytest.mark.parametrize("tag", MOVEMENTS)
def test_an_effective_date_that_is_none_is_refused(tag: str) -> None:
    command, _ = acceptable()[tag]
    assert isinstance(read_command(json.encode(replace(command, effective_at="yesterday"))), Unreadable)


@pytest.mark.parametrize("account", EXTERNAL)
def test_external_accounts_are_known_to_the_schema_the_documents_and_beancount(account: str) -> None:
    assert f"'{account}'::text" in (ROOT / "tests/data/schema.sql").read_text("utf-8")
    assert f"`{account}`" in (ROOT / "docs/kafka.md").read_text("utf-8")
    assert re.fullmatch(r"[A-Z][A-Za-z0-9-]*(:[A-Z0-9][A-Za-z0-9-]*)+", account_name(account))


@pytest.mark.parametrize("kind", get_args(Kind))
def test_a_kind_is_known_to_the_schema_the_figures_the_console_and_the_documents(kind: str) -> None:
    number = get_args(Kind).index(kind) + 1
    texts = {
        "tests/data/schema.sql": rf"CREATE TYPE public\.transaction_kind AS ENUM \([^)]*'{kind}'",
        "mercuria/projections/analytics/queries.sql": rf"kind = '{kind}'",
        "web/analytics.py": rf"\b{kind}s(_in)?: SumBody",
        "web/console/overview.js": rf"^const KINDS = .*\"{kind}\"",
        "web/console/console.css": rf"^\.series-{number} ",
        "docs/kafka.md": rf"^\| `kind` .*`{kind}`",
    }
    for name, pattern in texts.items():
        assert re.search(pattern, (ROOT / name).read_text("utf-8"), re.MULTILINE), name
