"""The text format of PostgreSQL's COPY, value by value.

A tab separates columns, and a line feed ends a row (https://www.postgresql.org/docs/current/sql-copy.html).
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache
from uuid import UUID

NULL = r"\N"

_ESCAPES = str.maketrans({"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"})


def hex_of(id_: UUID) -> str:
    """Return the text of an id."""
    # PostgreSQL also accepts ids without hyphens, which are several times as fast to write.
    return id_.int.to_bytes(16).hex()


def hex_or_null(id_: UUID | None) -> str:
    """Return the text of an id, or of NULL."""
    return NULL if id_ is None else hex_of(id_)


def text(value: str | None) -> str:
    """Return a text with the special characters of COPY escaped."""
    if value is None:
        return NULL
    return value if "\\" not in value and value.isprintable() else value.translate(_ESCAPES)


@lru_cache(4096)
def timestamp(time_ms: int) -> str:
    """Return the text of a timestamp; `time_ms` counts from 1970 in UTC."""
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds")


def array(elements: Iterable[str]) -> str:
    """Return the text of an array. The elements must not contain anything that needs quotes."""
    return "{" + ",".join(elements) + "}"
