"""`mercuria load` against a running stack: what it does, and what it says when it cannot."""

import json
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from mercuria.embedded.stack import Stack

from .conftest import BERKA, HEADER, CommandLine, lines


def eventually(condition: Callable[[], object], timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"this did not come true within {timeout_s} s"
        time.sleep(0.02)


def test_a_bank_balances(mercuria: CommandLine) -> None:
    """35,920 real operations give, after each of them, the balance that the bank recorded; and only once."""
    terms = ("--currency", "CZK", "--overdraft-limit", "10000.00", "--verify")
    said = mercuria("load", BERKA, *terms)
    assert said.code == 0, said
    assert said.out.startswith("35,920 operations on 927 wallets in ")
    assert lines(said.out)[1:] == ["None of them was done before.", "Every balance is as the file has it."]

    before = mercuria.wallets("--currency", "CZK", "--limit", "1000")
    assert len(before) == 927

    said = mercuria("load", BERKA, *terms)
    assert said.code == 0, said
    assert lines(said.out)[1:] == [
        "All were already done before: nothing has changed.",
        "Every balance is as the file has it.",
    ]
    assert mercuria.wallets("--currency", "CZK", "--limit", "1000") == before

    said = mercuria("load", BERKA, "--currency", "CZK")
    assert said.code == 0, said
    assert lines(said.out)[1:] == ["All were already done before: nothing has changed."]
    assert mercuria.wallets("--currency", "CZK", "--limit", "1000") == before


def test_withdrawals_that_nothing_covers_are_listed(mercuria: CommandLine) -> None:
    said = mercuria("load", BERKA, "--currency", "EUR")
    assert said.code == 1
    out = lines(said.out)
    assert out[0] == "22 operations were refused:"
    assert out[1] == (
        "line 3670, account 4034: insufficient_funds: The balance and the overdraft limit do not cover the amount."
    )
    assert out[22].startswith("line ")
    assert out[23].startswith("35,920 operations on 927 wallets in ")


def test_balances_that_are_not_the_files_are_listed(mercuria: CommandLine) -> None:
    file = mercuria.file(
        "1,2024-01-01,ann,deposit,500,500,",
        "2,2024-01-02,bob,deposit,100,101,",
        "3,2024-01-03,ann,withdraw,50,450,",
        "4,2024-01-04,ann,withdraw,50,-1,",
    )
    said = mercuria("load", file, "--currency", "USD", "--verify")
    assert said.code == 1
    assert lines(said.out)[:3] == [
        "2 operations were followed by another balance than the file has:",
        "line 3, account bob: balance_after is 101, and the wallet has 100",
        "line 5, account ann: balance_after is -1, and the wallet has 400",
    ]
    assert mercuria("load", file, "--currency", "USD").code == 0


def test_the_figures_of_a_load_are_json(mercuria: CommandLine) -> None:
    file = mercuria.file("1,,ann,deposit,500,501,", "2,,ann,withdraw,600,0,", "3,,bob,deposit,1,1,", ",,,,,,")
    said = mercuria("load", file, "--currency", "BRL", "--verify", "--json")
    assert (said.code, said.err) == (1, "")
    found = json.loads(said.out)
    (refusal,) = found.pop("refusals")
    assert (refusal["line"], refusal["account"], refusal["code"]) == (3, "ann", "insufficient_funds")
    assert refusal["wallet_id"] == mercuria.wallet_of("ann", "BRL")["id"] and not refusal["refused_before"]
    assert found.pop("differences") == [{"line": 2, "account": "ann", "expected": 501, "got": 500}]
    assert found.pop("seconds") > 0
    assert {name: value for name, value in found.items() if value} == {
        "currency": "BRL",
        "operations": 3,
        "wallets": 2,
        "done_now": 2,
        "refused": 1,
        "balances_verified": True,
        "different": 1,
        "blank_rows": 1,
    }
    said = mercuria("load", "absent.csv", "--currency", "BRL", "--json")
    assert (said.code, said.out) == (2, "")


def test_an_account_becomes_a_wallet(mercuria: CommandLine) -> None:
    file = mercuria.file("1,,Zoë,deposit,500,,", "2,,Zoë,withdrawal,700,,")
    said = mercuria("load", file, "--currency", "GBP", "--overdraft-limit", "2.5")
    assert said.code == 0, said
    wallet = mercuria.wallet_of("Zoë", "GBP")
    assert (wallet["balance"], wallet["overdraft_limit"], wallet["version"]) == (-200, 250, 3)


def test_what_was_done_before_is_not_done_again(mercuria: CommandLine) -> None:
    rows = ["a,,ann,deposit,500,500,", "b,,ann,withdraw,100,400,", "c,,bob,deposit,1,1,"]
    assert mercuria("load", mercuria.file(*rows[:2]), "--currency", "NOK").code == 0
    said = mercuria("load", mercuria.file(*rows), "--currency", "NOK", "--verify")
    assert said.code == 0, said
    assert "2 of them were already done before." in said.out
    assert mercuria.wallet_of("ann", "NOK")["balance"] == 400


def test_a_transaction_that_has_changed_since_is_refused(mercuria: CommandLine) -> None:
    assert mercuria("load", mercuria.file("a,,ann,deposit,500,,"), "--currency", "SEK").code == 0
    said = mercuria("load", mercuria.file("a,,ann,deposit,600,,"), "--currency", "SEK")
    assert said.code == 1
    assert lines(said.out)[:2] == [
        "1 operation was refused:",
        "line 2, account ann: command_id_reused: A command with this id and another content was decided before.",
    ]
    assert mercuria.wallet_of("ann", "SEK")["balance"] == 500


def test_when_no_worker_decides_it_gives_up_and_loses_nothing(mercuria: CommandLine, stack: Stack) -> None:
    file = mercuria.file("1,,ann,deposit,500,500,")
    (worker,) = stack.workers
    worker.stop()
    try:
        said = mercuria("load", file, "--currency", "DKK", "--timeout", "1")
        assert said.code == 2
        assert (
            "gave up: no worker has decided anything for 1 s; 1 undecided command in partition " in said.err
        )
        assert "load the file again then: nothing counts twice." in said.err

        process = mercuria.start("load", file, "--currency", "DKK")
        eventually(lambda: psutil.Process(process.pid).net_connections())
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
        assert process.returncode == 130
        assert "Stopped. Of 1 operation, 0 are decided" in err
        assert "Traceback" not in err
    finally:
        worker.start()
    said = mercuria("load", file, "--currency", "DKK", "--verify")
    assert said.code == 0, said
    assert mercuria.wallet_of("ann", "DKK")["version"] == 2


def test_of_a_file_with_bad_rows_nothing_is_sent(mercuria: CommandLine) -> None:
    rows = [f"{number},,ann,deposit,1,," for number in range(30)]
    bad = [f"x{number},,ann,deposit,zero,," for number in range(53)]
    said = mercuria("load", mercuria.file(*rows, *bad), "--currency", "CHF")
    assert said.code == 2
    err = lines(said.err)
    assert err[0] == "mercuria: nothing was sent, because the file cannot be loaded as it is:"
    assert err[1] == "line 32: amount 'zero' is not a whole number of minor units"
    assert err[50:] == ["line 81: amount 'zero' is not a whole number of minor units", "and 3 more"]
    assert mercuria.wallets("--currency", "CHF") == []


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--currency", "czk"], "--currency czk: there is no such currency"),
        (["--currency", "XAU"], "--currency XAU: there is no such currency"),
        (["--currency", "CZK", "--overdraft-limit", "much"], "--overdraft-limit: 'much' is not an amount"),
        (["--currency", "JPY", "--overdraft-limit", "1.5"], "has more than the 0 decimal digits of JPY"),
        (["--currency", "CZK", "--timeout", "nan"], "--timeout nan: it must be a number of seconds."),
        (["--currency", "CZK", "--overdraft-limit=-1"], "--overdraft-limit -1: it must not be negative"),
    ],
)
def test_terms_that_make_no_sense_are_refused(
    elsewhere: CommandLine, options: list[str], sentence: str
) -> None:
    said = elsewhere("load", elsewhere.file("1,,ann,deposit,1,,"), *options)
    assert said.code == 2
    assert sentence in said.err


def test_without_a_stack_it_says_how_to_start_one(elsewhere: CommandLine) -> None:
    said = elsewhere("load", elsewhere.file("1,,ann,deposit,1,,"), "--currency", "CZK")
    assert said.code == 2
    assert said.err == (
        "mercuria: no Kafka answers at 127.0.0.1:9092; start Mercuria with"
        f" `mercuria up --data-dir {elsewhere.data_dir}`, or point MERCURIA_KAFKA at it.\n"
    )


def test_a_pipe_is_read_as_a_file_is(mercuria: CommandLine, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    file = mercuria.file("1,,ann,deposit,5,5,", ",,,,,,", "2,, ann,withdraw,0,5,")
    with ThreadPoolExecutor(1) as writer:
        writer.submit(lambda: pipe.write_bytes(file.read_bytes()))
        said = mercuria("load", pipe, "--currency", "INR", "--verify")
    assert said.code == 0, said
    assert lines(said.out)[2:] == [
        "Skipped: 1 blank row, 1 row of amount 0.",
        "White space around cells was left out in 1 row.",
        "Every balance is as the file has it.",
    ]


def test_what_is_no_statement_is_refused_in_a_sentence(elsewhere: CommandLine, tmp_path: Path) -> None:
    utf_16 = tmp_path / "utf-16.csv"
    utf_16.write_bytes(f"{HEADER}\n1,,ann,deposit,1,,\n".encode("utf-16"))
    quoted = tmp_path / "quoted.csv"
    quoted.write_text('"' + HEADER.replace(",", '";"') + '"\n', "utf-8")
    for file, sentence in (
        (tmp_path, "is a directory"),
        (tmp_path / "missing.csv", "does not exist"),
        (Path("/dev/zero"), "/dev/zero is neither a file nor a pipe."),
        (Path("/dev/stdin"), "/dev/stdin is neither a file nor a pipe."),
        (utf_16, "line 1: this is not a text file in UTF-8, but one in UTF-16; save it as CSV in UTF-8"),
        (quoted, "line 1: the cells must be separated by commas"),
        (elsewhere.file("1,,a\x1b[2K,deposit,1,,"), "line 2: account 'a\\x1b[2K' has a character in it"),
    ):
        said = elsewhere("load", file, "--currency", "CZK")
        assert (said.code, said.out) == (2, ""), said
        assert sentence in said.err
        assert "Traceback" not in said.err
