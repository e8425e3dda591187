"""The store of the wallet projection: writes the tables `wallets`, `wallet_events` and `transactions`."""

from typing import Any

from mercuria.postgres.database import queries
from mercuria.projections.store import ProjectionTables, copy
from mercuria.projections.wallets.rows import Texts

_SQL = queries("mercuria.projections.wallets", "store.sql")


class WalletTables(ProjectionTables[Texts]):
    """The tables of wallets, their events, and transactions."""

    name = "transactions"

    def _set_up(self, cursor: Any) -> None:
        cursor.execute(_SQL["make_room"])

    def _write(self, cursor: Any, rows: Texts) -> None:
        copy(cursor, _SQL["copy_events"], rows.events)
        copy(cursor, _SQL["copy_wallets"], rows.openings)
        if rows.changed:
            cursor.execute(_SQL["change_wallets"], rows.changes)
            assert cursor.rowcount == rows.changed, "a wallet that changes is there, and older"
        if rows.limit_changes:
            copy(cursor, _SQL["copy_limits"], rows.limit_changes)
            cursor.execute(_SQL["change_limits"], rows.limits)
        if rows.transactions:
            copy(cursor, _SQL["copy_transactions"], rows.transactions)
            cursor.execute(_SQL["keep_transactions"])
