"""The projection that stores wallets, events and transactions, and publishes transactions that ended."""

from mercuria.agents.staging import Staged
from mercuria.app import settings
from mercuria.kafka.cloudevents import read_told
from mercuria.projections.wallets.rows import Rows
from mercuria.projections.wallets.store import Projections
from mercuria.topics import TRANSACTION_EVENTS, WALLET_EVENTS

transactions = Staged(
    WALLET_EVENTS,
    Projections(settings.database),
    Rows,
    read_told,
    says="wallets and transactions",
    outbound=TRANSACTION_EVENTS,
)
