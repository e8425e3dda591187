"""Snapshots of the ledger in PostgreSQL, for verification and export. They use psycopg2, which blocks."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psycopg2
from psycopg2.errors import UndefinedTable

from mercuria.postgres.database import queries
from mercuria.postgres.errors import first_line

CONNECT_TIMEOUT_S = 10
FETCHED_ROWS = 20_000

_SQL = queries("mercuria.projections.ledger", "snapshot.sql")


class BooksUnavailable(Exception):
    """The ledger cannot be read. The message is one sentence."""


class Books:
    """A snapshot of the ledger.

    Raises (all methods):
        BooksUnavailable: PostgreSQL is unavailable.
    """

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def all(self, name: str, **parameters: Any) -> list[tuple[Any, ...]]:
        """Return the rows of a query of `snapshot.sql`."""
        with self._connection.cursor() as cursor:
            cursor.execute(_SQL[name], parameters)
            rows: list[tuple[Any, ...]] = cursor.fetchall()
            return rows

    def read_whole(self) -> None:
        """Prepare for queries that compare whole tables. Do not run other queries afterwards."""
        with self._connection.cursor() as cursor:
            cursor.execute(_SQL["read_whole"])

    def pieces(self, name: str, parameters: Mapping[str, Any]) -> Iterator[list[tuple[Any, ...]]]:
        """Yield the rows of a query with a long result, some thousand at a time."""
        with self._connection.cursor(name=f"books_{name}") as cursor:
            cursor.execute(_SQL[name], parameters)
            while rows := cursor.fetchmany(FETCHED_ROWS):
                yield rows


@contextmanager
def books(url: str) -> Iterator[Books]:
    """Open a snapshot of the current ledger for the block.

    Raises:
        BooksUnavailable: PostgreSQL is unavailable, or not migrated.
    """
    try:
        connection = psycopg2.connect(
            url, connect_timeout=CONNECT_TIMEOUT_S, fallback_application_name="mercuria ledger"
        )
        try:
            with connection.cursor() as cursor:
                cursor.execute(_SQL["snapshot"])
                cursor.execute(_SQL["utc"])
            yield Books(connection)
        finally:
            connection.close()
    except UndefinedTable as error:
        raise BooksUnavailable("the database lacks tables: run `mercuria migrate`") from error
    except (psycopg2.OperationalError, psycopg2.InterfaceError) as error:
        raise BooksUnavailable(f"PostgreSQL cannot be read: {first_line(error)}") from error
