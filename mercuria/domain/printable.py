"""Text from outside as people can read it: what a terminal would obey, or an eye would not see, is shown escaped."""

import re

# What Python calls printable but no eye sees: fillers of scripts, a joiner, and Braille's empty cell.
_BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
_NAMED = {"\\": r"\\", "\n": r"\n", "\r": r"\r", "\t": r"\t"}
_LINE_ENDS = re.compile(r"\n(?=  )").split
_VISIBLE_ASCII = re.compile(r"[ -\[\]-~]*").fullmatch


def printable(text: str) -> str:
    r"""Return `text` as one line in which every character can be seen.

    Escaped are control characters, line and paragraph separators, marks of direction and other format characters,
    spaces that are no plain space, lone surrogates, and what Unicode has not assigned: as `\n`, `\x1b`, `\u202e`
    or `\U000e0001`. A backslash is doubled, so two texts never look the same. All else stays as it is.
    """
    if _VISIBLE_ASCII(text):
        return text
    return "".join(
        char if char.isprintable() and char not in _BLANK and char != "\\" else _escaped(char)
        for char in text
    )


def printable_lines(text: str) -> str:
    """Return a text of several lines, each as `printable` shows it.

    All but the first are indented by two spaces or more: a line's end before anything else is escaped, so that no text
    from outside begins a line of its own.
    """
    return "\n".join(map(printable, _LINE_ENDS(text)))


def _escaped(char: str) -> str:
    if char in _NAMED:
        return _NAMED[char]
    number = ord(char)
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
