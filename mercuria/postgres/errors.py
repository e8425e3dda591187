"""The messages of PostgreSQL's errors."""

import psycopg2


def first_line(error: psycopg2.Error) -> str:
    """Return the message of an error, without its details."""
    first, *_ = str(error).strip().splitlines() or ["it gives no reason"]
    return first
