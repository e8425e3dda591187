"""The agents. Each agent reads one topic, in batches of one partition.

`register` adds them to an app; nothing is registered by an import.
"""

from mercuria.agents import analytics, ledger, transactions, wallets, watchdog
from mercuria.tables.registration import Tables
from mercuria.worker import App


def register(app: App, tables: Tables) -> None:
    """Add the wallet agent, the projections and the watchdog to an app."""
    wallets.register(app, tables)
    transactions.register(app)
    ledger.register(app)
    analytics.register(app, tables)
    watchdog.register(app, tables)
