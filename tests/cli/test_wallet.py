"""`mercuria wallet`: wallets as the tables have them, whoever runs or does not run."""

import asyncio
import json
import shutil
from uuid import UUID, uuid4

from mercuria.domain.commands import OpenWallet
from mercuria.embedded.stack import Stack
from mercuria.kafka.client import command_producer, event_reader

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


def test_no_metadata_forges_a_line_or_reaches_the_terminal(mercuria: CommandLine, stack: Stack) -> None:
    metadata = {
        "label": "x\nBalance            999999.00 EUR",
        "t\x1b[2K": "\x1b]0;owned\x07[red]\u202e\x9b",
        "名前": "Zoë",
    }
    wallet_id = asyncio.run(opened(stack, metadata))
    said = mercuria("wallet", "show", str(wallet_id))
    assert (said.code, said.err) == (0, "")
    shown = dict(line.split("  ", 1) for line in said.out.splitlines())
    assert {name: text.strip() for name, text in shown.items() if name.startswith("Metadata")} == {
        "Metadata: label": r"x\nBalance            999999.00 EUR",
        r"Metadata: t\x1b[2K": r"\x1b]0;owned\x07[red]\u202e\x9b",
        "Metadata: 名前": "Zoë",
    }
    assert len(shown) == 9 + 3 and shown["Balance"].strip() == "0.00 SEK"
    as_json = mercuria("wallet", "show", str(wallet_id), "--json").out
    assert json.loads(as_json)["metadata"] == metadata
    assert not any(char in as_json for char in "\x1b\x07\u202e\x9b") and "名前" in as_json


async def opened(stack: Stack, metadata: dict[str, str]) -> UUID:
    """Open a wallet with some metadata, as any producer may, and return its id when its event is there."""
    command = OpenWallet(id=uuid4(), wallet_id=uuid4(), owner_id=uuid4(), currency="SEK", metadata=metadata)
    servers = stack.env["MERCURIA_KAFKA"]
    async with (
        event_reader(servers) as events,
        command_producer(servers, int(stack.env["MERCURIA_PARTITIONS"])) as producer,
    ):
        await producer.send([command])
        async for record in events:
            if str(command.wallet_id).encode() in record.value:
                break
    return command.wallet_id


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


def test_a_limit_is_changed_and_counts_for_what_comes(mercuria: CommandLine) -> None:
    load(mercuria, "SEK", "1,,lea,deposit,500,,", "2,,lea,withdraw,1200,,")
    wallet_id = mercuria.wallet_of("lea", "SEK")["id"]
    said = mercuria("wallet", "set-limit", wallet_id, "20.50", "--reason", "Eine Ausnahme für Ann.")
    assert (said.code, said.out) == (0, "The wallet may go to -20.50 SEK now.\n"), said
    assert mercuria.wallet_of("lea", "SEK")["overdraft_limit"] == 2050
    said = mercuria("wallet", "set-limit", wallet_id, "0")
    assert (said.code, said.out) == (
        0,
        "The wallet may go to 0.00 SEK now.\n"
        "It has -7.00 SEK: nothing can leave it until it has more than that.\n",
    )
    wallet = mercuria.wallet_of("lea", "SEK")
    assert (wallet["overdraft_limit"], wallet["balance"], wallet["version"]) == (0, -700, 5)
    said = mercuria("wallet", "set-limit", wallet_id, "7", "--json")
    shown = json.loads(said.out)
    assert said.code == 0 and shown["overdraft_limit"] == 700 and shown["version"] == 6
    wallet = mercuria.wallet_of("lea", "SEK")
    assert shown == {name: wallet[name] for name in shown}


def test_a_limit_that_cannot_be_is_refused_with_a_sentence(mercuria: CommandLine) -> None:
    load(mercuria, "CLP", "1,,lea,deposit,5,,")
    wallet_id, unknown = mercuria.wallet_of("lea", "CLP")["id"], str(uuid4())
    for words, code, says in (
        ((wallet_id, "much"), 2, "AMOUNT: 'much' is not an amount of money."),
        ((wallet_id, "1.5"), 2, "AMOUNT: '1.5' has more than the 0 decimal digits of CLP."),
        ((wallet_id, str(2**63)), 2, "AMOUNT: '9223372036854775808' is out of range"),
        ((wallet_id, "5", "--reason", "r" * 256), 2, "--reason: "),
        ((unknown, "5"), 1, f"there is no wallet {unknown}."),
    ):
        said = mercuria("wallet", "set-limit", *words)
        assert (said.code, said.out, f"mercuria: {says}" in said.err) == (code, "", True), said
    assert mercuria("wallet", "set-limit", "ann", "5").code == 2
    said = mercuria("wallet", "set-limit", wallet_id, "--", "-5")
    assert said.code == 2 and "it must not be negative" in said.err, said
    assert mercuria.wallet_of("lea", "CLP")["version"] == 2


def test_where_nothing_runs_no_limit_is_changed(elsewhere: CommandLine) -> None:
    said = elsewhere("wallet", "set-limit", str(uuid4()), "5")
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("mercuria: there are no tables in ")


def test_where_there_are_no_tables_that_is_said(elsewhere: CommandLine) -> None:
    for words in (("list",), ("show", str(uuid4()))):
        said = elsewhere("wallet", *words)
        assert (said.code, said.err) == (
            2,
            f"mercuria: there are no tables in {elsewhere.data_dir}: either no worker has run there yet,"
            " or the workers keep them on other machines.\n",
        )
