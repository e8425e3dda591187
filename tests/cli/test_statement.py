"""Reading a statement: what a row becomes, and what is said about rows that cannot be used."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
        ({"amount": "0.00"}, "amount '0.00' is not a whole number of minor units"),
        ({"amount": str(2**63)}, f"amount '{2**63}' must be from 0 to {MAX_AMOUNT}"),
        ({"balance_after": "x"}, "balance_after 'x' is not a whole number of minor units within 64 bits"),
        (
            {"balance_after": str(2**63)},
            f"balance_after '{2**63}' is not a whole number of minor units within 64 bits",
        ),
        ({"note": "x" * 501}, "note has 501 characters, and may have 500"),
        ({"note": "a\0b"}, "'a\\x00b' has a zero byte in it"),
        ({"operation": "\x1b[2K"}, "operation '\\x1b[2K' is neither deposit nor withdraw"),
        (
            {"account": "DE\u200b0212"},
            "account 'DE\\u200b0212' has a character in it that cannot be seen: U+200B ZERO WIDTH SPACE",
        ),
        (
            {"transaction_id": "\ufeffTX-77"},
            "transaction_id '\\ufeffTX-77' has a character in it that cannot be seen: U+FEFF ZERO WIDTH NO-BREAK SPACE",
        ),
        (
            {"account": "DE\u00a00212"},
            "account 'DE\\xa00212' has a character in it that cannot be seen: U+00A0 NO-BREAK SPACE",
        ),
        ({"account": "a\x1bb"}, "account 'a\\x1bb' has a character in it that cannot be seen: U+001B"),
        (
            {"account": "a\u3164b"},
            "account 'a\\u3164b' has a character in it that cannot be seen: U+3164 HANGUL FILLER",
        ),
        (
            {"account": "Zoe\u0308"},
            "account 'Zoe\u0308' has letters and accents apart; they must be composed (Unicode's NFC)",
        ),
        (
            {"date": "0001-01-01T00:00+01:00"},
            "date '0001-01-01T00:00+01:00' is not a date such as 1993-01-31",
        ),
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
        (f'{HEADER}\n\n1,,a,deposit,1,,"open\n', 3, "a quotation mark is opened here and never closed"),
        (
            f"{HEADER}\n1,,a,deposit,1,,caf\u00e9".encode("latin-1"),
            2,
            "this is not a text file in UTF-8: byte 0xe9 in b'caf\\xe9'",
        ),
        (f"{HEADER}\n1,,a,deposit,1,,\n1,,b,deposit,1,,\n", 3, "transaction_id '1' stands on line 2 already"),
        (
            f"{HEADER}\n1,,a,deposit,1,,\n 1\u00a0,,b,deposit,1,,\n",
            3,
            "transaction_id '1' stands on line 2 already",
        ),
        (
            f"{HEADER}\nTX-7,,a,deposit,1,,\nTX\u20137,,a,deposit,1,,\n",
            3,
            "transaction_id 'TX\u20137' looks like another one on line 2, and is not the same",
        ),
        (
            f"{HEADER}\n1,,DE02,deposit,1,,\n2,,D\u041502,deposit,1,,\n",
            3,
            "account 'D\u041502' looks like another one on line 2, and is not the same",
        ),
        (
            f"{HEADER}\n1,,DE02,deposit,1,,\n2,,\uff24\uff2502,deposit,1,,\n",
            3,
            "account '\uff24\uff2502' looks like another one on line 2, and is not the same",
        ),
        (
            f"{HEADER}\n1,,a b,deposit,1,,\n2,,a  b,deposit,1,,\n",
            3,
            "account 'a  b' looks like another one on line 2",
        ),
        (
            "\ufeff\ufeff" + HEADER,
            1,
            "these columns are missing: transaction_id; these columns are unknown: '\\ufeff",
        ),
        (
            f"{HEADER}\n1,,a,deposit,1,,\n".encode("utf-16"),
            1,
            "this is not a text file in UTF-8, but one in UTF-16;",
        ),
        (f"{HEADER}\n1,,a,deposit,1,,\n".encode("utf-16-be"), 1, "this is not a text file in UTF-8"),
        (
            f"{HEADER}\n1,,a,deposit,1,,\n".encode("utf-32"),
            1,
            "this is not a text file in UTF-8, but one in UTF-32;",
        ),
        (b"PK\x03\x04\x14\x00\x06\x00", 1, "this is not a text file in UTF-8"),
        ('"' + '";"'.join(COLUMNS) + '"\n', 1, "the cells must be separated by commas"),
        ('"' + '"\t"'.join(COLUMNS) + '"\n', 1, "the cells must be separated by commas"),
        ("|".join(COLUMNS) + "\n", 1, "the cells must be separated by commas"),
        ("sep=;\n" + ";".join(COLUMNS) + "\n", 1, "the cells must be separated by commas"),
        (f'{HEADER}\n"1";"2024-01-01";"a";"deposit";"1";"";""\n', 2, "the cells must be separated by commas"),
        (f"{HEADER}\n1;2\n", 2, "the cells must be separated by commas"),
        (f"{HEADER}\n1;;a;deposit;1,00;;\n", 2, "the cells must be separated by commas"),
        (f'{HEADER}\n"1"x,,a,deposit,1,,\n', 2, "a quoted cell is followed by something else than a comma"),
        (f"{HEADER}\n1,,a,deposit,1,,{'x' * 200_000}\n", 2, "a cell has more than 131,072 characters"),
        (f"{HEADER}\n{'1' * 2_000_000}\n", 2, "the line has more than 1,048,576 characters"),
        ("\0" * 2_000_000, 1, "this is not a text file in UTF-8"),
        (f"{HEADER}\n,,,,,,\n", 1, "there are no operations below the columns' names"),
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


def test_what_banks_and_spreadsheets_add_is_skipped_and_counted() -> None:
    content = (
        f"\ufeffsep=,\r\n{HEADER},\r\n,,,,,,,\r\n1, 2024-01-01 ,\u00a0DE02 , deposit,5 ,5, a note \r\n"
        ",,DE02,,0,5,Carried forward,\r\n2,,DE02,withdraw,00,5,,\r\n , , , , , , \r\n\x1a"
    )
    statement = Statement(io.BytesIO(content.encode()))
    findings = statement.check()
    assert list(findings.faults) == []
    assert (findings.operations, findings.accounts) == (1, ["DE02"])
    assert (findings.blank_rows, findings.zero_rows, findings.trimmed_rows) == (3, 2, 1)
    assert [each for each in statement.operations() if each.amount] == [
        Operation(4, "1", "2024-01-01", "DE02", "deposit", 5, 5, " a note ", untrimmed=("1", "\u00a0DE02 "))
    ]


def test_lines_may_end_as_on_any_system() -> None:
    rows = (HEADER, "1,,a,deposit,1,,", '2,,a,deposit,1,,"two\rlines"', "3,,b,deposit,x,,")
    for ending in ("\n", "\r\n", "\r"):
        (fault,) = faults(ending.join(rows) + ending)
        assert fault.line == 5
        assert check(ending.join(rows[:3])).accounts == ["a"]


def test_the_first_balance_says_with_what_an_account_begins() -> None:
    rows = (
        "1,2021-01-04,a,deposit,500,,",
        "2,,a,withdraw,100,1400,",
        "3,2021-01-05,b,withdraw,1,-101,",
        "4,,c,deposit,1,1,",
        "5,,a,deposit,1,77,",
    )
    content = "\n".join((HEADER, *rows))
    statement = Statement(io.BytesIO(content.encode()), with_openings=True)
    findings = statement.check()
    assert (findings.openings, list(findings.faults)) == ({"a": 1000, "b": -100}, [])
    operations = list(statement.operations(findings.openings))
    assert [each.transaction_id for each in operations] == [
        "opening balance", "1", "2", "opening balance", "3", "4", "5",
    ]  # fmt: skip
    assert operations[0] == Operation(
        2, "opening balance", "2021-01-04", "a", "deposit", 1000, 1000, "", "opening"
    )
    assert operations[3] == Operation(
        4, "opening balance", "2021-01-05", "b", "withdrawal", 100, -100, "", "opening"
    )


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ("1,,a,deposit,1,,", "account 'a' has no balance_after that would say its opening balance"),
        (f"1,,a,withdraw,1,{MAX_AMOUNT},", "account 'a' would have an opening balance beyond 64 bits"),
    ],
)
def test_an_opening_balance_that_the_file_does_not_say_is_a_fault(row: str, what: str) -> None:
    statement = Statement(io.BytesIO(f"{HEADER}\n{row}\n".encode()), with_openings=True)
    assert list(statement.check().faults) == [Fault(2, what)]


@given(st.binary(max_size=300), st.booleans())
def test_whatever_the_bytes_what_is_wrong_is_said(content: bytes, with_header: bool) -> None:
    raw = f"{HEADER}\n".encode() + content if with_header else content
    statement = Statement(io.BytesIO(raw), with_balances=True, with_openings=True)
    findings = statement.check()
    assert findings.accounts or findings.faults
    for fault in findings.faults:
        assert fault.what.isprintable()
    assert len(list(statement.operations(findings.openings))) >= findings.operations


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
