"""The projection that enters completed transactions into PostgreSQL's ledger, and publishes each entry."""

from mercuria.agents.projection_agent import ProjectionAgent
from mercuria.kafka.cloudevents import read_numbered
from mercuria.observability import metrics
from mercuria.projections.ledger.store import LedgerTables
from mercuria.projections.projection import Projection
from mercuria.worker import App


def register(app: App) -> None:
    """Add the projection to an app."""
    tables = LedgerTables(app.settings.database)
    projection = Projection(
        read=read_numbered,
        rows=tables.rows,
        tables=tables,
        label="entries of the ledger",
    )
    ProjectionAgent(app, projection)
    metrics.ledger_broken_partitions.set_function(
        lambda: sum(each in tables.broken for each in app.own_partitions())
    )
