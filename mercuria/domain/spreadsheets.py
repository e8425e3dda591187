"""CSV cells that no spreadsheet interprets as a formula, in whole or in part.

A spreadsheet splits a file by the separator of its locale, and treats a quotation mark as one only at the
start of a cell. It may therefore split a text that is quoted for another separator, and run the part after
`;` as a formula. For this reason, texts are escaped wherever a cell may begin in them, and not only at their
start (OWASP, CSV injection).
"""

import re

BYTE_ORDER_MARK = "\ufeff"
"""The start of a CSV file: without it, Excel reads UTF-8 in the code page of its locale."""

# The first characters of formulas: the four of ASCII, their full-width, small, superscript and subscript forms, and
# U+2212.
_FORMULA = "=+\\-@\uff1d\ufe66\u207c\u208c\uff0b\ufe62\u207a\u208a\uff0d\ufe63\u207b\u208b\u2212\uff20\ufe6b"
_SEPARATORS = ",;|\t\n\r\v\f\x1c-\x1e\x85\u2028\u2029"
# Characters that a spreadsheet may skip before a formula: white space, control and invisible characters, and the
# quotation marks of a cell.
_PASSED_OVER = r'"\s\x00-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff'

# The run before a formula is matched as a whole, and only from its beginning: the work stays linear in the text.
_BEFORE_FORMULA = re.compile(
    f"(?:^|(?<![{_PASSED_OVER}{_SEPARATORS}]))[{_PASSED_OVER}{_SEPARATORS}]*+(?=[{_FORMULA}])"
)
_BEGIN = re.compile(f"(\r\n|[{_SEPARATORS}])")
_LEADING = ("\t", "\r", "\n")


def cell(text: str) -> str:
    """Return a text that no spreadsheet runs as a formula, whatever separates its cells.

    An apostrophe is inserted wherever a cell that would be a formula may begin. All other texts are
    unchanged. Use it for texts only: a negative amount begins with a minus, and must stay a number.
    """
    safe = _BEFORE_FORMULA.sub(_kept_apart, text)
    return f"'{safe}" if safe.startswith(_LEADING) else safe


def _kept_apart(found: re.Match[str]) -> str:
    begin = "'" if found.start() == 0 and not found[0].startswith(_LEADING) else ""
    return begin + _BEGIN.sub(r"\1'", found[0])
