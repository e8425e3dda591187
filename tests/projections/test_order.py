"""The tables are the same whatever the order of the partitions, wherever batches are cut, and whatever comes again."""

from random import Random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mercuria.projections.wallets.rows import Rows
from mercuria.projections.wallets.store import WalletTables
from tests.projections.conftest import empty
from tests.projections.logs import Log, fetched, model_of, random_log, told
from tests.projections.model import checkpoints, read_tables


def project(random: Random, log: Log, writers: list[WalletTables]) -> None:
    """Bring a log into the tables in random pieces, which overlap, by writers that often give up before a commit."""
    read = [0] * len(log)
    while any(offset < len(events) for offset, events in zip(read, log, strict=True)):
        tables = random.choice(writers)
        partitions = random.sample(range(len(log)), random.randint(1, len(log)))
        rows = Rows(tables.begin(partitions))
        for partition in partitions:
            start = random.randint(0, read[partition])
            end = min(len(log[partition]), read[partition] + random.randint(0, 12))
            rows.take(partition, told(fetched(log, partition, start, end)))
        if random.random() < 0.2:
            tables.leave()
            continue
        tables.write(rows.payload(), rows.moved)
        for partition in partitions:
            read[partition] = rows.checkpoints[partition].read + 1


@given(st.integers(0, 2**32))
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_order_any_cuts_and_anything_again_give_the_same_tables(
    url: str, writers: list[WalletTables], seed: int
) -> None:
    random = Random(seed)
    empty(url)
    log = random_log(random, 60)
    project(random, log, writers)
    assert read_tables(url) == model_of(log).comparable()
    ends = {partition: len(events) - 1 for partition, events in enumerate(log) if events}
    assert {partition: read for partition, (read, *_) in checkpoints(url).items() if read >= 0} == ends
