"""What others wrote, as it is shown: nothing that a terminal obeys, and nothing that an eye would miss."""

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mercuria.cli.printable import json_text, printable, printable_lines

texts = st.text(
    st.characters(exclude_categories=["Cs"])
    | st.sampled_from("\\x1bu\x1b\x7f\x9b\u2028\u202e\u200b\ud800\U000e0001")
)
OBEYED = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Categories of characters that a terminal obeys, or that may look like anything."""


def obeyed(text: str) -> list[str]:
    return [char for char in text if unicodedata.category(char) in OBEYED]


@given(texts)
def test_nothing_that_a_terminal_obeys_is_shown(text: str) -> None:
    assert obeyed(printable(text)) == []


@given(texts, texts)
def test_two_texts_never_look_the_same(one: str, other: str) -> None:
    assert (printable(one) == printable(other)) == (one == other)


@given(texts)
def test_what_is_shown_can_be_read_back(text: str) -> None:
    shown = printable(text)
    parts = shown.split(r"\\")
    assert (
        "\\".join(part.encode("latin-1", "backslashreplace").decode("unicode_escape") for part in parts)
        == text
    )


@pytest.mark.parametrize(
    "text", ["", "Rent 12/2024", "äöü ß", "漢字", "😀 👍🏽 ❤️", "naïve “quoted”", "عربي", "[red]x[/]"]
)
def test_plain_text_stays(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("x\nBalance  9", r"x\nBalance  9"),
        ("\x1b]0;owned\x07\x1b[2K", r"\x1b]0;owned\x07\x1b[2K"),
        ("\x9b2J\x7f", r"\x9b2J\x7f"),
        ("a\u202eb", r"a\u202eb"),
        ("a\u2028b\u2029", r"a\u2028b\u2029"),
        ("DE0212\xa0", r"DE0212\xa0"),
        ("DE0212\u200b", r"DE0212\u200b"),
        ("\u3164", r"\u3164"),
        ("\ud800", r"\ud800"),
        ("\U000e0041", r"\U000e0041"),
        (r"\x1b", r"\\x1b"),
    ],
)
def test_what_would_not_be_seen_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_only_a_line_that_is_indented_is_one_of_its_own() -> None:
    assert printable_lines("a\n  b\r\n    \x1bc\nd\u2028e") == "a\n  b\\r\n    \\x1bc\\nd\\u2028e"


@given(st.dictionaries(texts, texts | st.integers() | st.none()))
def test_json_is_as_exact_as_ever_and_obeyed_by_no_terminal(value: dict[str, object]) -> None:
    shown = json_text(value)
    assert json.loads(shown) == value
    assert obeyed(shown.replace("\n", "")) == []
