"""Strict JSON: rules for HTTP bodies and records, so that all parsers read the same values from a text.

Parsers differ in how they treat a name that is repeated in an object: some take the first value, some the
last. Mercuria refuses repeated names at every depth. Names are compared after decoding: `"amo\\u0075nt"` is
`amount`.
"""

import json
import re
from typing import Any

MAX_DEPTH = 32
"""The maximum depth of nested values. Python's own limit depends on the caller, and decisions must not."""

MAX_QUOTED_CHARACTERS = 64
"""How much of a client's text an error message quotes."""

_BRACKETS = re.compile(rb"[\[\]{}]")
_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*+"?', re.DOTALL)


class RepeatedNameError(ValueError):
    """An object repeats a name. `name` is the decoded name, however long."""

    def __init__(self, name: str) -> None:
        super().__init__(f"`{name[:MAX_QUOTED_CHARACTERS]}` stands there twice.")
        self.name = name


def is_too_deep(value: bytes) -> bool:
    """Return whether a text, read as JSON, is nested deeper than `MAX_DEPTH`."""
    if value.count(b"[") + value.count(b"{") <= MAX_DEPTH:
        return False
    depth = 0
    for bracket in _BRACKETS.findall(_STRINGS.sub(b"", value)):
        depth += 1 if bracket in b"[{" else -1
        if depth > MAX_DEPTH:
            return True
    return False


def check_names(value: bytes) -> None:
    """Check that no object in a text repeats a name. The text must be JSON, and not too deep.

    Raises:
        RepeatedNameError: an object repeats a name.
    """
    _decode(value.decode())


def repeated_names(value: bytes) -> set[str]:
    """Return the names that the object `value` itself repeats, whatever its nested values hold."""
    repeated: set[str] = set()

    def look(pairs: list[tuple[str, Any]]) -> None:
        nonlocal repeated  # The outermost object ends last.
        seen: set[str] = set()
        repeated = {name for name, _ in pairs if name in seen or seen.add(name)}  # type: ignore[func-returns-value]

    json.JSONDecoder(object_pairs_hook=look, parse_int=len).decode(value.decode())
    return repeated


def _check(pairs: list[tuple[str, Any]]) -> None:
    if len({name for name, _ in pairs}) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise RepeatedNameError(name)
            seen.add(name)


# Numbers are not parsed: Python refuses integers that are longer than a setting of the process allows.
_decode = json.JSONDecoder(object_pairs_hook=_check, parse_int=len).decode
