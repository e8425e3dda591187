"""Safe output of foreign text by commands: in messages, and as JSON."""

import json
import re
from typing import Any

from mercuria.domain.printable import printable, printable_lines

__all__ = ["json_text", "printable", "printable_lines"]

# JSON's own escaping leaves these characters unchanged: DEL, C1, and all that are not ASCII.
_UNSEEN = re.compile(r"[^\n -~]").sub


def json_text(value: Any) -> str:
    """Return indented JSON that is harmless on a terminal and exact for a program.

    Letters of every script are unchanged; control, format and separating characters become JSON's `\\u`
    escapes.
    """
    return _UNSEEN(_as_json_escape, json.dumps(value, indent=1, ensure_ascii=False))


def _as_json_escape(found: re.Match[str]) -> str:
    char = found[0]
    return char if printable(char) == char else json.dumps(char)[1:-1]
