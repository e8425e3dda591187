"""What the tests of the projections share: a PostgreSQL without workers, whose tables are empty at first."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from random import Random, randrange
from typing import Any

import psycopg2
import pytest

from mercuria.embedded.postgres import APPLICATION, OWNER, Postgres
from mercuria.embedded.stack import Stack
from mercuria.postgres.database import Database
from mercuria.postgres.migrate import migrate
from mercuria.projections.checkpoints import Checkpoint
from mercuria.projections.event_reader import EventReader
from mercuria.projections.projection import Projection, ProjectionRows
from mercuria.projections.rebuild import TABLES
from mercuria.projections.relay import Relay
from mercuria.projections.rereading import SEEK_TAKES_S, Rereading
from mercuria.projections.runner import ProjectionRunner
from mercuria.projections.store import ProjectionTables
from mercuria.projections.wallets.queries import History
from mercuria.projections.wallets.store import WalletTables
from tests.conftest import living
from tests.embedded.conftest import only
from tests.harness.audit.projections import OUTBOXES


@pytest.fixture
def random() -> Random:
    """Return chance, and say its seed: pytest shows what was printed when a test fails."""
    seed = randrange(2**32)
    print(f"seed {seed}")
    return Random(seed)


@pytest.fixture(scope="package")
def live_stack(tmp_path_factory: pytest.TempPathFactory, said: list[str]) -> Iterator[Stack]:
    """Return a stack of these tests' own: they do much and audit all of it, and what others did would take minutes."""
    with living(tmp_path_factory, said) as stack:
        yield stack


@pytest.fixture(scope="package")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """Return a started PostgreSQL with the schema, which nobody starts again when it is killed."""
    data_dir = tmp_path_factory.mktemp("projections") / "data"
    with Stack(data_dir, environ=only("database"), supervise=False) as stack:
        migrate(stack.postgres.owner_url)
        yield stack.postgres


@pytest.fixture
def url(postgres: Postgres) -> str:
    """Return where PostgreSQL is; its tables are empty."""
    empty(postgres.url)
    return postgres.url


def runner_of(
    tables: ProjectionTables[Any],
    rows: Callable[[dict[int, Checkpoint]], ProjectionRows],
    read: Callable[[bytes], tuple[Any, int]],
    seek: Callable[[int, int], Awaitable[None]],
    *,
    relay: Relay | None = None,
    seek_takes_s: float = SEEK_TAKES_S,
    label: str = "wallets and transactions",
    **options: Any,
) -> ProjectionRunner:
    """Return the runner of a projection of wallets' events, unless the options say otherwise."""
    projection = Projection(tables=tables, rows=rows, read=read, label=label, **options)
    rereading = Rereading(projection.name, seek, seek_takes_s)
    return ProjectionRunner(projection, EventReader(projection), rereading, relay)


@asynccontextmanager
async def writing(runner: ProjectionRunner) -> AsyncIterator[None]:
    """Let a projection write what it is given, until the block ends."""
    running = asyncio.create_task(runner.run())
    try:
        yield
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


def as_owner(url: str) -> str:
    """Return where the owner of an embedded PostgreSQL's tables finds it, if the application does at `url`."""
    return url.replace(f"//{APPLICATION}@", f"//{OWNER}@", 1)


def empty(url: str) -> None:
    """Empty the tables, as their owner."""
    connection = psycopg2.connect(as_owner(url))
    with connection, connection.cursor() as cursor:
        # For a few rows, several times as fast as TRUNCATE.
        cursor.execute("ALTER TABLE ledger_entries DISABLE TRIGGER ledger_entries_are_final")
        for table in (*TABLES, *OUTBOXES, "positions"):
            cursor.execute(f"DELETE FROM {table}")
        cursor.execute("ALTER TABLE ledger_entries ENABLE ALWAYS TRIGGER ledger_entries_are_final")
    connection.close()


@pytest.fixture
def writers(url: str) -> Iterator[list[WalletTables]]:
    """Return the tables, as two workers write them."""
    opened = [WalletTables(url), WalletTables(url)]
    yield opened
    for each in opened:
        each.close()


@pytest.fixture
async def history(url: str) -> AsyncIterator[History]:
    """Return the tables to read."""
    database = Database(url)
    yield History(database)
    await database.close()
