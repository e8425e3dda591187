"""Where Kafka has lost what was read from it, nothing is decided beside what PostgreSQL and the tables have."""

import shutil
from pathlib import Path

import pytest

from mercuria.embedded.errors import StackError
from mercuria.embedded.stack import Stack
from mercuria.kafka.log_ends import LogEnds, LogLostError
from mercuria.topics import WALLET_COMMANDS
from tests.embedded.conftest import only
from tests.harness.audit.projections import audit_projections
from tests.harness.stacks import fresh_stack
from tests.projections.model import read_tables
from tests.protocol.kafka_client import open_kafka_client


async def test_a_worker_without_its_directory_does_not_begin_beside_an_empty_kafka(
    tmp_path: Path, said: list[str]
) -> None:
    with fresh_stack(tmp_path, 1, said.append) as stack:
        async with open_kafka_client(stack) as kafka_client:
            for partition in range(3):
                await kafka_client.wallet(100, partition=partition)
        assert (await audit_projections(stack)).violations == []
        before = read_tables(stack.env["MERCURIA_DATABASE"])
    # What must not be done, and is done in a hurry.
    shutil.rmtree(tmp_path / "kafka" / "data")
    shutil.rmtree(tmp_path / "worker-1")
    refusal = r"Kafka has lost records of mercuria\.\w+\.events, or is another one: partition \d ends at 0"
    again = fresh_stack(tmp_path, 1, said.append, supervise=False)
    try:
        with pytest.raises(StackError, match=refusal):
            again.start()
    finally:
        again.stop()
    with Stack(tmp_path, environ=only("database"), supervise=False) as servers:
        assert read_tables(servers.postgres.url) == before


async def test_a_log_has_to_reach_up_to_where_it_was_read(live_stack: Stack) -> None:
    async with open_kafka_client(live_stack) as kafka_client:
        await kafka_client.wallet(partition=0)
    async with LogEnds(live_stack.env["MERCURIA_KAFKA"]) as log_ends:
        ends = await log_ends.ends(WALLET_COMMANDS, range(8))
        await log_ends.check(WALLET_COMMANDS, ends)
        await log_ends.check(WALLET_COMMANDS, dict.fromkeys(ends, 0))
        lost = f"partition 0 ends at {ends[0]:,}, and was read up to {ends[0] + 1:,}. New records"
        with pytest.raises(LogLostError, match=lost):
            await log_ends.check(WALLET_COMMANDS, ends | {0: ends[0] + 1})
