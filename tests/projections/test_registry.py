"""The registry of projections has every table of PostgreSQL that is made of the log, and its stores write no other."""

from contextlib import closing

import psycopg2

from mercuria.projections.registry import PROJECTIONS

NOT_MADE_OF_THE_LOG = {"users", "refresh_families", "refresh_tokens", "positions"}


def test_every_table_is_filled_by_one_projection_or_is_not_made_of_the_log(url: str) -> None:
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename NOT LIKE '%yoyo%'"
        )
        there = sorted(name for (name,) in cursor)
    of_projections = [table for flow in PROJECTIONS.values() for table in (*flow.fills, flow.outbox) if table]
    assert sorted([*of_projections, *NOT_MADE_OF_THE_LOG]) == there


def test_what_is_published_has_an_outbox() -> None:
    assert all((flow.publishes is None) == (flow.outbox is None) for flow in PROJECTIONS.values())
