"""What commands print of texts that others wrote: in words, and as JSON."""

import json
import re
from typing import Any

from mercuria.domain.printable import printable, printable_lines

__all__ = ["json_text", "printable", "printable_lines"]

# JSON's own escapes leave these as they are: DEL, C1, and whatever is not ASCII.
_UNSEEN = re.compile(r"[^\n -~]").sub


def json_text(value: Any) -> str:
    """Return JSON, indented, that is as harmless on a terminal as it is exact for a program.

    Letters of every script stay; control, format and separating characters stand as JSON's own `\\u` escapes.
    """
    return _UNSEEN(_as_json_escape, json.dumps(value, indent=1, ensure_ascii=False))


def _as_json_escape(found: re.Match[str]) -> str:
    char = found[0]
    return char if printable(char) == char else json.dumps(char)[1:-1]
