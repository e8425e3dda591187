"""Identifying texts: accounts and transaction_ids.

Two texts that look the same must not be different. White space around a text is ignored, and an invisible
character inside makes it unusable. The rest may still look like another text of the same file (`likeness`).
"""

import re
import unicodedata

from mercuria.domain.printable import printable

SHOWN_CHARACTERS = 40

_UNSEEN_CATEGORIES = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs"}
# Characters that Unicode calls letters or marks, but that are invisible: fillers, joiners, variation selectors,
# Braille's empty cell.
_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
_PLAIN = re.compile("[!-~]+(?: [!-~]+)*").fullmatch
_SPACES = re.compile(" +")

# The replacements of spreadsheets for hyphens and quotation marks; Cyrillic and Greek letters that look like Latin
# ones.
_LOOKALIKES: dict[int, str | int] = {
    **dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2014\u2015\u2212"), "-"),
    **dict.fromkeys(map(ord, "\u2018\u2019\u201a\u201b"), "'"),
    **dict.fromkeys(map(ord, "\u201c\u201d\u201e\u201f"), '"'),
    **str.maketrans(
        "\u0410\u0412\u0415\u0405\u0406\u0408\u041a\u041c\u041d\u041e\u0420\u0421", "ABESIJKMHOPC"
    ),
    **str.maketrans(
        "\u0422\u0425\u0430\u0435\u0455\u0456\u0458\u043e\u0440\u0441\u0443\u0445", "TXaesijopcyx"
    ),
    **str.maketrans(
        "\u0391\u0392\u0395\u0396\u0397\u0399\u039a\u039c\u039d\u039f\u03a1\u03a4", "ABEZHIKMNOPT"
    ),
    **str.maketrans("\u03a5\u03a7\u03bf", "YXo"),
}


def fault_of_text(name: str, text: str) -> str | None:
    """Return the reason why a text cannot identify anything, or None; `name` is the column's."""
    if _PLAIN(text):
        return None
    for char in text:
        unseen = char != " " and unicodedata.category(char) in _UNSEEN_CATEGORIES
        if unseen or _UNSEEN.match(char):
            which = f"U+{ord(char):04X} {unicodedata.name(char, '')}".rstrip()
            return f"{name} {shown(text)} has a character in it that cannot be seen: {which}"
    if not unicodedata.is_normalized("NFC", text):
        return f"{name} {shown(text)} has letters and accents apart; they must be composed (Unicode's NFC)"
    return None


def likeness(text: str) -> str:
    """Return a value that is the same for all texts that look alike."""
    if _PLAIN(text):
        return text
    return _SPACES.sub(" ", unicodedata.normalize("NFKC", text).translate(_LOOKALIKES))


def shown(text: str) -> str:
    """Return a text in quotation marks, on one line, truncated if it is long."""
    return f"'{printable(text[:SHOWN_CHARACTERS])}{'…' if len(text) > SHOWN_CHARACTERS else ''}'"
