"""The registry of projections has every table of PostgreSQL that is made of the log, and workers may fill it."""

import re
from pathlib import Path

import pytest

from mercuria.projections.rebuild import TABLES
from mercuria.projections.registry import PROJECTIONS
from mercuria.topics import PROCESSED
from tests.harness.audit.projections import OUTBOXES

# `test_schema` holds this file to what the migrations make.
SCHEMA = (Path(__file__).parents[1] / "data" / "schema.sql").read_text("utf-8")
NOT_MADE_OF_THE_LOG = {"users", "refresh_families", "refresh_tokens", "positions"}
OF_PROJECTIONS = [*TABLES, *OUTBOXES]


def test_every_table_is_filled_by_one_projection_or_is_not_made_of_the_log() -> None:
    there = re.findall(r"^CREATE TABLE public\.(\w+)", SCHEMA, re.MULTILINE)
    assert sorted([*OF_PROJECTIONS, *NOT_MADE_OF_THE_LOG]) == sorted(there)


@pytest.mark.parametrize("table", OF_PROJECTIONS)
def test_workers_may_fill_a_table(table: str) -> None:
    assert re.search(rf"^GRANT .*INSERT.* ON TABLE public\.{table} TO mercuria_app;", SCHEMA, re.MULTILINE)


def test_what_is_published_has_an_outbox() -> None:
    assert all((flow.publishes is None) == (flow.outbox is None) for flow in PROJECTIONS.values())


def test_records_of_every_topic_that_is_read_may_be_skipped() -> None:
    assert {flow.reads for flow in PROJECTIONS.values()} < set(PROCESSED)
