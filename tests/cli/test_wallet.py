"""`mercuria wallet`: wallets as the tables have them, whoever runs or does not run."""

import json
import shutil
from uuid import uuid4

from mercuria.embedded.stack import Stack

from .conftest import CommandLine, lines


def load(mercuria: CommandLine, currency: str, *rows: str) -> None:
    said = mercuria("load", mercuria.file(*rows), "--currency", currency, "--overdraft-limit", "10")
    assert said.code == 0, said


def test_every_field_of_a_wallet_is_shown(mercuria: CommandLine) -> None:
    load(mercuria, "PLN", "1,,ann,deposit,1050,,")
    wallet = mercuria.wallet_of("ann", "PLN")
    said = mercuria("wallet", "show", wallet["id"].upper())
    assert said.code == 0, said
    words = dict(line.split("  ", 1) for line in lines(said.out))
    assert {name: text.strip() for name, text in words.items()} == {
        "Wallet": wallet["id"],
        "Owner": wallet["owner_id"],
        "Status": "open",
        "Balance": "10.50 PLN",
        "Overdraft limit": "10.00 PLN",
        "Sent in transfers": "0.00 PLN",
        "Version": "2",
        "Opened": wallet["created_at"],
        "Last changed": wallet["updated_at"],
        "Metadata: account": "ann",
    }
    assert json.loads(mercuria("wallet", "show", wallet["id"], "--json").out) == wallet


def test_a_wallet_that_is_not_there_is_said_to_be_missing(mercuria: CommandLine) -> None:
    unknown = uuid4()
    said = mercuria("wallet", "show", str(unknown))
    assert (said.code, said.err) == (1, f"mercuria: there is no wallet {unknown}.\n")
    assert mercuria("wallet", "show", "ann").code == 2


def test_wallets_are_listed_by_owner_and_currency_oldest_first(mercuria: CommandLine) -> None:
    load(mercuria, "HUF", "1,,ann,deposit,1,,")
    load(mercuria, "HUF", "1,,bob,deposit,1,,")
    load(mercuria, "RON", "1,,ann,deposit,1,,")
    owner = mercuria.wallet_of("ann", "HUF")["owner_id"]

    accounts = [each["metadata"]["account"] for each in mercuria.wallets("--currency", "huf")]
    assert accounts == ["ann", "bob"]
    assert {"HUF", "RON"} <= {each["currency"] for each in mercuria.wallets("--owner", owner)}
    assert {each["owner_id"] for each in mercuria.wallets("--owner", owner)} == {owner}
    assert mercuria.wallets("--owner", str(uuid4())) == []
    assert "There are no such wallets." in mercuria("wallet", "list", "--currency", "ISK").out

    said = mercuria("wallet", "list", "--currency", "HUF", "--limit", "1")
    assert "0.01 HUF" in said.out
    assert owner in said.out
    assert lines(said.out)[-1] == "1 of 2 wallets; --limit shows more."


def test_the_copy_that_is_the_furthest_counts_and_no_worker_need_run(
    mercuria: CommandLine, stack: Stack
) -> None:
    load(mercuria, "MXN", "1,,ann,deposit,1,,")
    (worker,) = stack.workers
    worker.stop()
    copy = mercuria.data_dir / "worker-9"
    try:
        shutil.copytree(mercuria.data_dir / "worker-1", copy)
        assert mercuria.wallet_of("ann", "MXN")["balance"] == 1
        worker.start()
        load(mercuria, "MXN", "2,,ann,deposit,1,,")
        wallet = mercuria.wallet_of("ann", "MXN")
        assert wallet["balance"] == 2
        assert "0.02 MXN" in mercuria("wallet", "show", wallet["id"]).out
    finally:
        if not worker.is_alive():
            worker.start()
        shutil.rmtree(copy)


def test_where_there_are_no_tables_that_is_said(elsewhere: CommandLine) -> None:
    for words in (("list",), ("show", str(uuid4()))):
        said = elsewhere("wallet", *words)
        assert (said.code, said.err) == (
            1,
            f"mercuria: there are no tables in {elsewhere.data_dir}: either no worker has run there yet,"
            " or the workers keep them on other machines.\n",
        )
