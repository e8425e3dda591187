"""Registration: the tables of an app, made and added to it.

The package itself imports nothing: commands that read the rows (`tables.balance_rows`) do without Faust.
"""

from typing import NamedTuple

from mercuria.tables.balances import BalancesTable
from mercuria.tables.counters import CountersTable
from mercuria.tables.receipts import ReceiptsTable
from mercuria.topics import WALLET_COMMANDS
from mercuria.worker import App


class Tables(NamedTuple):
    """The tables of one app."""

    balances: BalancesTable
    receipts: ReceiptsTable
    counters: CountersTable


def register(app: App) -> Tables:
    """Make the tables of an app, and add them to it."""
    tables = Tables(BalancesTable(app), ReceiptsTable(app), CountersTable(app))
    for table in tables:
        app.tables.add(table)
    app.positions[WALLET_COMMANDS] = tables.balances.resume_at
    return tables
