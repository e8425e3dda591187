"""Every projection: the topic that it reads, the tables that it fills, and the topic to which it publishes."""

from collections.abc import Mapping
from typing import NamedTuple

from mercuria.topics import LEDGER_EVENTS, TRANSACTION_EVENTS, WALLET_EVENTS


class Flow(NamedTuple):
    """The data flow of a projection.

    Args:
        reads: the topic of its events.
        fills: its tables in PostgreSQL. `mercuria rebuild` empties them, and the projection fills them again.
        publishes: the topic of the events that it emits.
        outbox: the table in which they wait for Kafka.
    """

    reads: str
    fills: tuple[str, ...]
    publishes: str | None = None
    outbox: str | None = None


PROJECTIONS: Mapping[str, Flow] = {
    "transactions": Flow(
        reads=WALLET_EVENTS,
        fills=("wallets", "wallet_events", "wallet_limits", "transactions"),
        publishes=TRANSACTION_EVENTS,
        outbox="outbox_events",
    ),
    "ledger": Flow(
        reads=TRANSACTION_EVENTS,
        fills=("ledger_entries",),
        publishes=LEDGER_EVENTS,
        outbox="ledger_outbox",
    ),
    "analytics": Flow(
        reads=LEDGER_EVENTS,
        fills=(
            "daily_totals",
            "daily_active_wallets",
            "user_totals",
            "effective_totals",
            "effective_active_wallets",
        ),
    ),
}
"""By the name under which a projection keeps its checkpoints, in the order in which a command's events pass them."""
