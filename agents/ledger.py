"""The projection that enters completed transactions into PostgreSQL's ledger, and publishes each entry."""

from mercuria.agents.staging import Staged
from mercuria.kafka.cloudevents import read_numbered
from mercuria.observability import metrics
from mercuria.projections.ledger.store import LedgerTables
from mercuria.topics import LEDGER_EVENTS, TRANSACTION_EVENTS
from mercuria.worker import App


def register(app: App) -> None:
    """Add the projection to an app."""
    tables = LedgerTables(app.settings.database)
    Staged(
        app,
        TRANSACTION_EVENTS,
        tables,
        tables.rows,
        read_numbered,
        says="entries of the ledger",
        outbound=LEDGER_EVENTS,
    )
    metrics.ledger_broken_partitions.set_function(
        lambda: sum(each in tables.broken for each in app.own_partitions())
    )
