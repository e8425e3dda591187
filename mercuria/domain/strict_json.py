"""Strict JSON: rules that HTTP bodies and records share, so that no two readers of a text find two meanings in it.

Parsers differ in what they do with a name that stands twice in one object: some take the first value, some the last.
Here, it is refused at every depth. Names count as they are meant: `"amo\\u0075nt"` is `amount`.
"""

import json
import re
from typing import Any

MAX_DEPTH = 32
"""How deep values may be nested. Python's own limit depends on the caller, and decisions must not."""

MAX_QUOTED_CHARACTERS = 64
"""How much of a client's text an error repeats."""

_BRACKETS = re.compile(rb"[\[\]{}]")
_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*+"?', re.DOTALL)


class RepeatedNameError(ValueError):
    """An object has a name twice. `name` is that name as it is meant, however long."""

    def __init__(self, name: str) -> None:
        super().__init__(f"`{name[:MAX_QUOTED_CHARACTERS]}` stands there twice.")
        self.name = name


def is_too_deep(value: bytes) -> bool:
    """Return whether a text, taken as JSON, is nested deeper than `MAX_DEPTH`."""
    if value.count(b"[") + value.count(b"{") <= MAX_DEPTH:
        return False
    depth = 0
    for bracket in _BRACKETS.findall(_STRINGS.sub(b"", value)):
        depth += 1 if bracket in b"[{" else -1
        if depth > MAX_DEPTH:
            return True
    return False


def check_names(value: bytes) -> None:
    """Check that no object in a text has a name twice. The text is JSON, and not too deep.

    Raises:
        RepeatedNameError: one has.
    """
    _decode(value.decode())


def repeated_names(value: bytes) -> set[str]:
    """Return the names that stand twice in the object `value` itself, whatever stands deeper."""
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


# Numbers are not looked at: Python refuses integers that are longer than a setting of the process says.
_decode = json.JSONDecoder(object_pairs_hook=_check, parse_int=len).decode
