"""What PostgreSQL's errors say."""

import psycopg2


def first_line(error: psycopg2.Error) -> str:
    """Return what an error says, without its details."""
    first, *_ = str(error).strip().splitlines() or ["it gives no reason"]
    return first
