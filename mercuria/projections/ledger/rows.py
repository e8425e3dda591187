"""Rows of PostgreSQL's table `ledger_entries`, made from completed transactions, as the text that COPY takes."""

from collections.abc import Iterable, Mapping

from mercuria.domain.ledger import Entry, entries_of
from mercuria.domain.transaction import TransactionCompleted
from mercuria.postgres.copy_text import NULL, hex_of, timestamp
from mercuria.projections.checkpoints import Place
from mercuria.projections.rows import OutboundEvent, PlacedRows, SourceEvent


class LedgerRows(PlacedRows):
    """Entries of some transactions.

    Args:
        places: how far each partition is that `take` may get events of.
        heads: the hash of the last entry of each of them.
    """

    def __init__(self, places: Mapping[int, Place], heads: Mapping[int, bytes]) -> None:
        super().__init__(places)
        self._heads = dict(heads)
        self._rows: list[str] = []

    def take(self, partition: int, events: Iterable[SourceEvent]) -> None:
        """Take records of a partition that follow those before; what is entered already is left out.

        Raises:
            MissingEventError: the numbers of the events do not follow each other.
        """
        new = self.follow(partition, events)
        place = self.places[partition]
        entries, outbound = place.told, self.outbound[partition]
        for event, time_ms, _, key, trace in new:
            if type(event) is TransactionCompleted:
                pair = entries_of(
                    event, partition, time_ms, sequence=entries, previous=self._heads[partition]
                )
                entries += 2
                self._heads[partition] = bytes.fromhex(pair[1].hash)
                self._rows += (entry_row(partition, entry) for entry in pair)
                if entries > place.sent:
                    outbound += (OutboundEvent(entry, time_ms, key, trace) for entry in pair)
        self.places[partition] = place._replace(told=entries, sent=max(place.sent, entries))

    @property
    def size(self) -> int:
        """How many rows there are."""
        return len(self._rows)

    def texts(self) -> str:
        """Return what is to be written."""
        return "".join(self._rows)


def entry_row(partition: int, entry: Entry) -> str:
    """Return an entry as COPY takes it."""
    is_wallet = entry.balance_after is not None
    return (
        f"{partition}\t{entry.sequence}\t{hex_of(entry.transaction_id)}\t{entry.kind}\t{entry.direction}"
        f"\t{entry.account if is_wallet else NULL}\t{NULL if is_wallet else entry.account}"
        f"\t{entry.amount}\t{entry.currency}"
        f"\t{entry.balance_after if is_wallet else NULL}\t{entry.wallet_version if is_wallet else NULL}"
        f"\t{timestamp(entry.occurred_at_ms)}\t\\\\x{entry.hash}\t{entry.effective_at or NULL}\n"
    )
