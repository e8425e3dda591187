"""`mercuria load` of a file that was loaded before: what was refused is tried again, and nothing counts twice."""

import asyncio
import json
import time
from pathlib import Path
from typing import Any
from uuid import uuid4, uuid5

import pytest

from mercuria.cli.load.openings import opened_between
from mercuria.cli.load.statement import Operation
from mercuria.cli.load.terms import Attempt, Terms
from mercuria.domain.commands import ClientCommand, Deposit, FreezeWallet, SetLimits, UnfreezeWallet
from mercuria.embedded.stack import Stack
from mercuria.kafka.client import command_producer, event_reader, read_log
from mercuria.topics import WALLET_EVENTS

from .conftest import CommandLine, lines


class Client:
    """A Kafka client that sends commands, and reads what came of all that was sent."""

    def __init__(self, data_dir: Path) -> None:
        names = dict(line.split("=", 1) for line in (data_dir / "stack.env").read_text().splitlines())
        self.kafka = names["MERCURIA_KAFKA"]

    def send(self, *commands: ClientCommand) -> None:
        """Send commands; what is sent to their wallets afterwards is decided after them."""
        asyncio.run(self._send(commands))

    def events(self, account: str, currency: str) -> list[dict[str, Any]]:
        """Return the data of all events of an account's wallet."""
        return asyncio.run(self._events(str(Terms(currency, 0).wallet_id(account))))

    async def _send(self, commands: tuple[ClientCommand, ...]) -> None:
        async with command_producer(self.kafka, 8) as producer:
            await producer.send(commands)

    async def _events(self, wallet_id: str) -> list[dict[str, Any]]:
        data = [json.loads(record.value)["data"] async for record in read_log(self.kafka, WALLET_EVENTS)]
        return [each for each in data if each["wallet_id"] == wallet_id]


@pytest.fixture
def client(stack: Stack) -> Client:
    """Return a client of the running stack."""
    return Client(stack.directory.path)


def freeze(account: str, currency: str) -> FreezeWallet:
    return FreezeWallet(id=uuid4(), wallet_id=Terms(currency, 0).wallet_id(account))


def unfreeze(account: str, currency: str) -> UnfreezeWallet:
    return UnfreezeWallet(id=uuid4(), wallet_id=Terms(currency, 0).wallet_id(account))


def test_what_a_frozen_wallet_refused_is_loaded_when_it_is_open_again(
    mercuria: CommandLine, client: Client
) -> None:
    terms = ("--currency", "AUD", "--verify")
    assert mercuria("load", mercuria.file("b0,,acc3,deposit,1,1,"), *terms).code == 0
    rows = ["b0,,acc3,deposit,1,1,", "b1,,acc3,deposit,500,501,", "b2,,acc3,withdraw,200,301,"]
    file = mercuria.file(*rows)

    client.send(freeze("acc3", "AUD"))
    said = mercuria("load", file, *terms)
    assert said.code == 1
    out = lines(said.out)
    assert out[:3] == [
        "2 operations were refused:",
        "line 3, account acc3: wallet_frozen: The wallet is frozen.",
        "line 4, account acc3: wallet_frozen: The wallet is frozen.",
    ]
    assert out[4] == "0 were done now, 1 was already done before, 2 were refused."
    assert "Every balance is as the file has it." not in out

    said = mercuria("load", file, *terms)
    assert said.code == 1
    out = lines(said.out)
    assert out[1] == "line 3, account acc3: wallet_frozen: The wallet is frozen. It was refused before, too."
    assert out[4] == (
        "0 were done now, 1 was already done before, 2 were refused, 2 of them not for the first time."
    )

    client.send(unfreeze("acc3", "AUD"))
    said = mercuria("load", file, *terms)
    assert said.code == 0, said
    assert lines(said.out)[1:] == [
        "1 of them was already done before.",
        "2 were done now that an earlier load was refused.",
        "Every balance is as the file has it.",
    ]
    said = mercuria("load", file, *terms)
    assert said.code == 0, said
    assert lines(said.out)[1] == "All were already done before: nothing has changed."
    assert mercuria.wallet_of("acc3", "AUD")["balance"] == 301


def test_a_limit_that_was_too_low_is_raised_by_the_next_load(mercuria: CommandLine, client: Client) -> None:
    file = mercuria.file("1,,ann,deposit,100,100,", "2,,ann,withdraw,300,-200,", "3,,ann,deposit,50,-150,")
    said = mercuria("load", file, "--currency", "NZD", "--verify")
    assert said.code == 1
    wallet_id = mercuria.wallet_of("ann", "NZD")["id"]
    assert f"`mercuria wallet set-limit {wallet_id} AMOUNT`" in said.out
    assert "1 balance behind one was not compared." in said.out

    terms = ("--currency", "NZD", "--overdraft-limit", "2.00", "--verify")
    said = mercuria("load", file, *terms)
    assert said.code == 0, said
    assert lines(said.out)[1:] == [
        "2 of them were already done before.",
        "1 was done now that an earlier load was refused.",
        "1 wallet got the overdraft limit 2.00 NZD, instead of another one.",
        "Every balance is as the file has it.",
    ]
    wallet = mercuria.wallet_of("ann", "NZD")
    assert (wallet["balance"], wallet["overdraft_limit"]) == (-150, 200)

    said = mercuria("load", file, *terms)
    assert said.code == 0, said
    assert lines(said.out)[1] == "All were already done before: nothing has changed."
    assert mercuria("load", file, "--currency", "NZD").code == 0
    assert mercuria.wallet_of("ann", "NZD") == wallet


def test_a_limit_that_an_operator_set_stays(mercuria: CommandLine, client: Client) -> None:
    file = mercuria.file("1,,ann,deposit,100,100,", "2,,ann,withdraw,300,-200,")
    assert mercuria("load", file, "--currency", "CAD", "--verify").code == 1
    client.send(
        SetLimits(id=uuid4(), wallet_id=Terms("CAD", 0).wallet_id("ann"), overdraft_limit=200, reason="Asked")
    )
    said = mercuria("load", file, "--currency", "CAD", "--verify")
    assert said.code == 0, said
    assert mercuria.wallet_of("ann", "CAD")["overdraft_limit"] == 200


def test_rows_of_a_version_without_effective_dates_are_recognised(
    mercuria: CommandLine, client: Client
) -> None:
    terms = Terms("SGD", 0)
    wallet_id = terms.wallet_id("ann")
    rows = [
        Operation(2, "1", "2021-03-04", "ann", "deposit", 500, None, "n"),
        Operation(3, "2", "2021-03-05", "ann", "withdrawal", 700, None, ""),
    ]
    old = [terms.command(Attempt(row, 0, is_old_form=True), wallet_id) for row in rows]
    client.send(terms.opening("ann"), *old)
    more = Deposit(id=uuid4(), wallet_id=wallet_id, amount=300)

    file = mercuria.file(
        "1,2021-03-04,ann,deposit,500,500,n",
        "2,2021-03-05,ann,withdraw,700,-200,",
        "3,2021-03-06T01:00:00+02:00,ann,deposit,1,-199,",
    )
    said = mercuria("load", file, "--currency", "SGD")
    assert said.code == 1
    assert lines(said.out)[3] == (
        "1 was done now, 1 was already done before, 1 was refused, 1 of them not for the first time."
    )
    client.send(more)
    said = mercuria("load", file, "--currency", "SGD")
    assert said.code == 0, said
    assert mercuria.wallet_of("ann", "SGD")["balance"] == 101

    dates = {
        each["reference"]: each.get("effective_at")
        for each in client.events("ann", "SGD")
        if "transaction_id" in each
    }
    assert dates == {
        "1": None,
        "2": "2021-03-05T00:00:00.000Z",
        None: None,
        "3": "2021-03-05T23:00:00.000Z",
    }


def test_rows_of_a_version_that_kept_white_space_do_not_count_twice(
    mercuria: CommandLine, client: Client
) -> None:
    terms = Terms("PHP", None)
    wallet_id = terms.wallet_id("ann")
    deposit = Deposit(id=uuid5(wallet_id, "TX-77 "), wallet_id=wallet_id, amount=5)
    client.send(terms.opening("ann"), deposit, terms.opening("DE0212 "))
    for row in ("TX-77 ,,ann,deposit,5,,", "TX-79,,DE0212 ,deposit,5,,"):
        said = mercuria("load", mercuria.file("TX-76 ,,ann,deposit,1,,", row), "--currency", "PHP")
        assert said.code == 2
        assert (
            "no operation was sent: an earlier version has loaded 1 row, such as line 3, with the" in said.err
        )
    said = mercuria("load", mercuria.file("TX-76 ,,\u00a0ann,deposit,1,,"), "--currency", "PHP")
    assert said.code == 0, said
    assert mercuria.wallet_of("ann", "PHP")["balance"] == 6


def test_two_loads_at_the_same_moment_count_once(mercuria: CommandLine, client: Client) -> None:
    rows = [f"{number},,ann,deposit,1,{number},x" for number in range(1, 201)]
    file = mercuria.file(*rows)
    client.send(Terms("MYR", 0).opening("ann"), freeze("ann", "MYR"))
    assert mercuria("load", file, "--currency", "MYR").code == 1
    client.send(unfreeze("ann", "MYR"))
    loads = [mercuria.start("load", file, "--currency", "MYR", "--verify") for _ in range(2)]
    for process in loads:
        out, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (0, ""), out
    assert mercuria.wallet_of("ann", "MYR")["balance"] == 200


def test_opening_balances_are_deposited_once(mercuria: CommandLine, client: Client) -> None:
    rows = [
        ",2021-01-01,ann,,0,1000,Brought forward",
        "1,2021-01-04,ann,deposit,500,1500,",
        "2,2021-01-05,bob,withdraw,1,-101,",
        "3,2021-01-05,eve,deposit,7,7,",
        "4,2021-01-06,ann,deposit,0,1500,Interest",
        ",,,,,,",
    ]
    terms = ("--currency", "HKD", "--overdraft-limit", "2", "--verify")
    options = (*terms, "--opening-balances")
    said = mercuria("load", mercuria.file(*rows), *options)
    assert said.code == 0, said
    assert lines(said.out)[1:] == [
        "None of them was done before.",
        "Opening balances: 2 done now, 0 already done before, 0 left out,"
        " because the wallet had money or an opening balance already.",
        "Skipped: 1 blank row, 2 rows of amount 0.",
        "Every balance is as the file has it.",
    ]
    opening = client.events("ann", "HKD")[1]
    assert (opening["reference"], opening["amount"]) == ("opening balance", 1000)
    assert opening["effective_at"] == "2021-01-01T00:00:00.000Z"

    more = [*rows, "5,,ann,withdraw,1500,0,"]
    said = mercuria("load", mercuria.file(*more), *options)
    assert said.code == 0, said
    assert "Opening balances: 0 done now, 2 already done before, 0 left out" in said.out
    balances = {name: mercuria.wallet_of(name, "HKD")["balance"] for name in ("ann", "bob", "eve")}
    assert balances == {"ann": 0, "bob": -101, "eve": 7}

    # The next statement begins where that one ended. Eve's first began at nothing, so she has no opening balance yet.
    following = mercuria.file("6,,bob,deposit,1,-100,", "7,,eve,deposit,1,8,", "8,,eve,withdraw,8,0,")
    for _ in range(2):
        said = mercuria("load", following, *options)
        assert said.code == 0, said
        assert "Opening balances: 0 done now, 0 already done before, 2 left out" in said.out
    assert mercuria.wallet_of("bob", "HKD")["balance"] == -100
    assert mercuria.wallet_of("eve", "HKD")["balance"] == 0


def test_without_opening_balances_it_says_that_there_are_some(mercuria: CommandLine) -> None:
    file = mercuria.file("1,,ann,deposit,500,1500,", "2,,ann,deposit,1,1501,")
    said = mercuria("load", file, "--currency", "THB", "--verify")
    assert said.code == 1
    assert "1 account had money before the file begins: --opening-balances loads that as well." in said.out
    said = mercuria("load", file, "--currency", "THB", "--verify", "--opening-balances")
    assert said.code == 0, said
    assert mercuria.wallet_of("ann", "THB")["balance"] == 1501


async def test_when_a_wallet_was_opened_is_found_in_the_log(mercuria: CommandLine, client: Client) -> None:
    before = int(time.time() * 1000)
    await client._send((Terms("ZAR", 0).opening("ann"),))
    assert mercuria("load", mercuria.file("1,,bob,deposit,1,,"), "--currency", "ZAR").code == 0
    assert mercuria("load", mercuria.file("1,,ann,deposit,1,,"), "--currency", "ZAR").code == 0
    after = int(time.time() * 1000)
    ann, bob, unknown = (Terms("ZAR", 0).wallet_id(name) for name in ("ann", "bob", "zoe"))
    async with event_reader(client.kafka) as reader:
        assert await opened_between(reader, {ann, bob, unknown}, before, after) == {ann, bob}
        assert await opened_between(reader, {bob, unknown}, 0, after) == {bob}
        assert await opened_between(reader, {ann, bob}, 0, before - 1) == set()
        assert await opened_between(reader, {ann, bob}, after + 60_000, after + 120_000) == set()
