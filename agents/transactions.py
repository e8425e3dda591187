"""The projection that stores wallets, events and transactions, and publishes transactions that ended."""

from mercuria.agents.staging import Staged
from mercuria.kafka.cloudevents import read_told
from mercuria.projections.wallets.rows import Rows
from mercuria.projections.wallets.store import Projections
from mercuria.topics import TRANSACTION_EVENTS, WALLET_EVENTS
from mercuria.worker import App


def register(app: App) -> None:
    """Add the projection to an app."""
    Staged(
        app,
        WALLET_EVENTS,
        Projections(app.settings.database),
        Rows,
        read_told,
        says="wallets and transactions",
        outbound=TRANSACTION_EVENTS,
    )
