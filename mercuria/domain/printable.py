"""Printable text: escapes characters of foreign text that a terminal would obey or that are invisible."""

import re

# Characters that Python calls printable but that are invisible: fillers of scripts, a joiner, and Braille's empty
# cell.
_BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
_NAMED = {"\\": r"\\", "\n": r"\n", "\r": r"\r", "\t": r"\t"}
_LINE_ENDS = re.compile(r"\n(?=  )").split
_VISIBLE_ASCII = re.compile(r"[ -\[\]-~]*").fullmatch


def printable(text: str) -> str:
    r"""Return `text` as one line in which every character is visible.

    Control characters, line and paragraph separators, direction marks and other format characters, spaces
    other than the plain space, lone surrogates, and unassigned code points are escaped: as `\n`, `\x1b`,
    `\u202e` or `\U000e0001`. A backslash is doubled, so two different texts never look the same. All other
    characters are unchanged.
    """
    if _VISIBLE_ASCII(text):
        return text
    return "".join(
        char if char.isprintable() and char not in _BLANK and char != "\\" else _escaped(char)
        for char in text
    )


def printable_lines(text: str) -> str:
    """Return a text of several lines, with each line as `printable` returns it.

    All lines but the first must be indented by two spaces or more. A line break before anything else is
    escaped, so that foreign text cannot begin a line of its own.
    """
    return "\n".join(map(printable, _LINE_ENDS(text)))


def _escaped(char: str) -> str:
    if char in _NAMED:
        return _NAMED[char]
    number = ord(char)
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
