"""Reading a statement: what a row becomes, and what is said about rows that cannot be used."""

import io

import pytest

from mercuria.cli.load.firsts import Firsts
from mercuria.cli.load.statement import COLUMNS, Fault, Findings, Operation, Statement, parse
from mercuria.domain.money import MAX_AMOUNT

HEADER = ",".join(COLUMNS)


def cells(**changes: str) -> list[str]:
    row = {
        "transaction_id": "695247",
        "date": "1993-01-01",
        "account": "2378",
        "operation": "deposit",
        "amount": "70000",
        "balance_after": "70000",
        "note": "cash deposit",
    }
    return list((row | changes).values())


def check(content: bytes | str, with_balances: bool = False) -> Findings:
    raw = content.encode() if isinstance(content, str) else content
    return Statement(io.BytesIO(raw), with_balances=with_balances).check()


def faults(content: bytes | str, with_balances: bool = False) -> list[Fault]:
    return list(check(content, with_balances).faults)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, Operation(7, "695247", "1993-01-01", "2378", "deposit", 70000, 70000, "cash deposit")),
        (
            {"operation": "withdraw", "balance_after": "-54"},
            Operation(7, "695247", "1993-01-01", "2378", "withdrawal", 70000, -54, "cash deposit"),
        ),
        (
            {"operation": "withdrawal", "date": "", "note": "", "balance_after": ""},
            Operation(7, "695247", "", "2378", "withdrawal", 70000, None, ""),
        ),
        (
            {"amount": str(MAX_AMOUNT), "balance_after": str(-MAX_AMOUNT), "note": "x" * 500},
            Operation(7, "695247", "1993-01-01", "2378", "deposit", MAX_AMOUNT, -MAX_AMOUNT, "x" * 500),
        ),
    ],
)
def test_a_row_becomes_an_operation(changes: dict[str, str], expected: Operation) -> None:
    assert parse(7, cells(**changes)) == expected


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"transaction_id": ""}, "transaction_id is empty"),
        ({"transaction_id": " "}, "transaction_id is empty"),
        ({"transaction_id": "x" * 256}, "transaction_id has 256 characters, and may have 255"),
        ({"date": "31.1.1993"}, "date '31.1.1993' is not a date such as 1993-01-31"),
        ({"date": "1993-02-29"}, "date '1993-02-29' is not a date such as 1993-01-31"),
        ({"account": ""}, "account is empty"),
        ({"operation": "Deposit"}, "operation 'Deposit' is neither deposit nor withdraw"),
        ({"operation": ""}, "operation '' is neither deposit nor withdraw"),
        ({"amount": ""}, "amount '' is not a whole number of minor units"),
        ({"amount": "700.00"}, "amount '700.00' is not a whole number of minor units"),
        ({"amount": "1_000"}, "amount '1_000' is not a whole number of minor units"),
        ({"amount": "٣"}, "amount '٣' is not a whole number of minor units"),
        ({"amount": "-5"}, "amount '-5' is not a whole number of minor units"),
        ({"amount": "0"}, f"amount '0' must be from 1 to {MAX_AMOUNT}"),
        ({"amount": str(2**63)}, f"amount '{2**63}' must be from 1 to {MAX_AMOUNT}"),
        ({"balance_after": "x"}, "balance_after 'x' is not a whole number of minor units within 64 bits"),
        (
            {"balance_after": str(2**63)},
            f"balance_after '{2**63}' is not a whole number of minor units within 64 bits",
        ),
        ({"note": "x" * 501}, "note has 501 characters, and may have 500"),
        ({"note": "a\0b"}, "'a\\x00b' has a zero byte in it"),
    ],
)
def test_what_is_wrong_with_a_row_is_said(changes: dict[str, str], what: str) -> None:
    assert parse(7, cells(**changes)) == Fault(7, what)


def test_an_empty_balance_is_a_fault_where_balances_are_verified() -> None:
    row = cells(balance_after="")
    assert parse(7, row, with_balance=True) == Fault(
        7, "balance_after is empty, and there is nothing to verify"
    )


@pytest.mark.parametrize(
    ("content", "line", "what"),
    [
        ("", 1, "the file is empty"),
        ("\n\n", 1, "the file is empty"),
        (HEADER, 1, "there are no operations below the columns' names"),
        ("a;b;c\n1;2;3\n", 1, "the cells must be separated by commas"),
        ("a\tb\n", 1, "the cells must be separated by commas"),
        (b"\xff\xfe\x00", 1, "this is not a text file in UTF-8"),
        (HEADER.removesuffix(",note"), 1, "these columns are missing: note"),
        (f"{HEADER},colour", 1, "these columns are unknown: 'colour'"),
        (f"{HEADER},note", 1, "these columns are there twice: note"),
        (f"{HEADER}\n1,2\n", 2, "there are 2 cells instead of 7"),
        (f'{HEADER}\n\n1,,a,deposit,1,,"open\n', 3, "this is not CSV (unexpected end of data)"),
        (f"{HEADER}\n1,,a,deposit,1,,caf\u00e9".encode("latin-1"), 2, "b'caf\\xe9' is not UTF-8"),
        (f"{HEADER}\n1,,a,deposit,1,,\n1,,b,deposit,1,,\n", 3, "transaction_id '1' stands on line 2 already"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(content: bytes | str, line: int, what: str) -> None:
    (fault,) = faults(content)
    assert fault.line == line
    assert fault.what.startswith(what)


def test_every_bad_row_is_named_by_the_line_on_which_it_begins() -> None:
    content = (
        f'{HEADER}\n1,,a,deposit,1,,"two\nlines"\n2,,a,deposit,x,,\n\n3,,,deposit,1,,\n4,,a,deposit,1,,\n'
    )
    assert [fault.line for fault in faults(content)] == [4, 6]


def test_columns_may_come_in_any_order_and_after_a_byte_order_mark() -> None:
    content = (
        "\ufeffnote,amount,operation,account,date,transaction_id,balance_after\r\nhi,5,deposit,a,,1,5\r\n"
    )
    statement = Statement(io.BytesIO(content.encode()))
    findings = statement.check()
    assert (findings.operations, findings.accounts, list(findings.faults)) == (1, ["a"], [])
    assert list(statement.operations()) == [Operation(2, "1", "", "a", "deposit", 5, 5, "hi")]


def test_a_file_is_read_again_from_its_beginning() -> None:
    statement = Statement(io.BytesIO(f"{HEADER}\n1,,a,deposit,1,,\n2,,b,deposit,1,,\n".encode()))
    assert statement.check().accounts == ["a", "b"]
    assert [operation.transaction_id for operation in statement.operations()] == ["1", "2"]
    assert [operation.transaction_id for operation in statement.operations()] == ["1", "2"]


def test_of_many_faults_the_first_are_kept_and_all_are_counted() -> None:
    firsts = Firsts[Fault](limit=2)
    assert not firsts
    for line in (9, 3, 7, 1, 8):
        firsts.add(Fault(line, "bad"))
    assert firsts
    assert [each.line for each in firsts] == [1, 3]
    assert (firsts.total, firsts.left_out) == (5, 3)
