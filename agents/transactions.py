"""The projection that stores wallets, events and transactions, and publishes transactions that ended."""

from mercuria.agents.projection_agent import ProjectionAgent
from mercuria.kafka.cloudevents import read_wallet_event
from mercuria.projections.projection import Projection
from mercuria.projections.wallets.rows import Rows
from mercuria.projections.wallets.store import WalletTables
from mercuria.worker import App


def register(app: App) -> None:
    """Add the projection to an app."""
    projection = Projection(
        read=read_wallet_event,
        rows=Rows,
        tables=WalletTables(app.settings.database),
        label="wallets and transactions",
    )
    ProjectionAgent(app, projection)
