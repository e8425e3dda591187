# ruff: noqa: RUF001  characters that look like others are what it is about
"""Cells of spreadsheets: no text is run, whatever a spreadsheet takes for the separator; ordinary texts stay."""

import csv
import io

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mercuria.domain.spreadsheets import BYTE_ORDER_MARK, cell

FORMULA = tuple("=+-@＝＋－＠﹦﹢﹣﹫⁼⁺⁻₌₊₋−")
PASSED_OVER = (
    "".join(map(chr, [*range(33), *range(127, 161), 0xAD, 0x200B, 0x200E, 0x202E, 0x2066, 0xFEFF])) + '"'
)

pieces = st.sampled_from(
    [*FORMULA, *",;|\t\n\r\v\f\"' \u2028\x85\u200b\ufeff\x00a1", "\r\n", '""', "cmd|' /C calc'!A0", "ab"]
)
texts = st.lists(pieces, max_size=12).map("".join)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("=1+1", "'=1+1"),
        ("Rent;=cmd|' /C calc'!A0", "Rent;'=cmd|' /C calc'!A0"),
        ("Rent; =1", "Rent;' =1"),
        ('Rent;"=1"', 'Rent;\'"=1"'),
        ("Rent\t@SUM(A1)", "Rent\t'@SUM(A1)"),
        ("a\r\n-1", "a\r\n'-1"),
        ("a|+1", "a|'+1"),
        ("a,＝1", "a,'＝1"),
        ("\t=1", "'\t'=1"),
        (" =1", "' =1"),
        ("\ufeff=1", "'\ufeff=1"),
        ("\u2212" + "1", "'\u2212" + "1"),
        ("\tindented", "'\tindented"),
    ],
)
def test_a_formula_is_a_text_wherever_a_cell_may_begin(text: str, expected: str) -> None:
    assert cell(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Salary",
        "Rent; May",
        "a-b = c",
        "x@example.com",
        "1;2;3",
        "'=1",
        "two\nlines",
        "two\r\n\r\nlines",
        "Überweisung – Miete",
    ],
)
def test_ordinary_texts_stay_what_they_are(text: str) -> None:
    assert cell(text) == text


@given(st.lists(texts, min_size=1, max_size=4), st.integers(-(2**63), 2**63 - 1))
@example(["Rent;=cmd|' /C calc'!A0"], -5)
@example(['\n"', ';"=1'], -5)
def test_no_separator_makes_a_formula_of_a_text(rows: list[str], amount: int) -> None:
    file = io.StringIO(newline="")
    csv.writer(file).writerows([("2026-11-28", amount, cell(text)) for text in rows])
    written = BYTE_ORDER_MARK + file.getvalue()
    for separator in ",;\t|":
        for row in csv.reader(
            io.StringIO(written.removeprefix(BYTE_ORDER_MARK), newline=""), delimiter=separator
        ):
            for found in row:
                assert found == str(amount) or not found.lstrip(PASSED_OVER).startswith(FORMULA), (
                    separator,
                    row,
                )


@given(texts)
def test_only_apostrophes_are_added(text: str) -> None:
    assert cell(text).replace("'", "") == text.replace("'", "")


def test_a_text_of_millions_of_separators_takes_a_moment() -> None:
    # A way that looks ahead from each of them would take hours.
    text = "\t" * 1_000_000 + "a" + ";" * 1_000_000
    assert cell(text) == f"'{text}"
