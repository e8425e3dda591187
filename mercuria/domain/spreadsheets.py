"""Texts in cells of CSV: no spreadsheet takes one, or a part of one, for a formula.

A spreadsheet splits a file by the separator of its locale, and reads a quotation mark as one only where a cell begins.
So it may split a text that is quoted for another separator, and run what follows `;` as a formula. The texts are
therefore made safe wherever a cell may begin in them, and not only at their start (OWASP, CSV injection).
"""

import re

BYTE_ORDER_MARK = "\ufeff"
"""Begins a file of CSV: without it, Excel takes UTF-8 for the code page of its locale."""

# What a formula begins with: the four of ASCII, their full-width, small, superscript and subscript forms, and U+2212.
_FORMULA = "=+\\-@\uff1d\ufe66\u207c\u208c\uff0b\ufe62\u207a\u208a\uff0d\ufe63\u207b\u208b\u2212\uff20\ufe6b"
_SEPARATORS = ",;|\t\n\r\v\f\x1c-\x1e\x85\u2028\u2029"
# What a spreadsheet may pass over before a formula: white space, control and invisible characters, and the quotation
# marks of a cell.
_PASSED_OVER = r'"\s\x00-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff'

# The run before a formula is matched as a whole, and only from where it begins: the work stays linear in the text.
_BEFORE_FORMULA = re.compile(
    f"(?:^|(?<![{_PASSED_OVER}{_SEPARATORS}]))[{_PASSED_OVER}{_SEPARATORS}]*+(?=[{_FORMULA}])"
)
_BEGIN = re.compile(f"(\r\n|[{_SEPARATORS}])")
_LEADING = ("\t", "\r", "\n")


def cell(text: str) -> str:
    """Return a text so that no spreadsheet runs it, whatever separates its cells.

    An apostrophe stands wherever a cell that would be a formula may begin. All other texts stay what they are. It is
    for texts: a negative amount begins with a minus, and stays a number.
    """
    safe = _BEFORE_FORMULA.sub(_kept_apart, text)
    return f"'{safe}" if safe.startswith(_LEADING) else safe


def _kept_apart(found: re.Match[str]) -> str:
    begin = "'" if found.start() == 0 and not found[0].startswith(_LEADING) else ""
    return begin + _BEGIN.sub(r"\1'", found[0])
