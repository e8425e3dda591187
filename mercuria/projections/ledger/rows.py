"""Rows of the table `ledger_entries`, built from completed transactions, as a COPY payload."""

from collections.abc import Iterable, Mapping

from mercuria.domain.ledger import Entry, entries_of
from mercuria.domain.transaction import TransactionCompleted
from mercuria.postgres.copy_text import NULL, hex_of, timestamp
from mercuria.projections.checkpoints import Checkpoint
from mercuria.projections.rows import CheckpointedRows, OutboundEvent, SourceEvent


class LedgerRows(CheckpointedRows):
    """Entries of some transactions.

    Args:
        checkpoints: the checkpoint of each partition whose events `take` may receive.
        heads: the hash of the last entry of each of these partitions.
    """

    def __init__(self, checkpoints: Mapping[int, Checkpoint], heads: Mapping[int, bytes]) -> None:
        super().__init__(checkpoints)
        self._heads = dict(heads)
        self._rows: list[str] = []

    def take(self, partition: int, events: Iterable[SourceEvent]) -> None:
        """Add the next records of a partition. Records that are entered already are skipped.

        Raises:
            MissingEventError: the numbers of the events do not follow each other.
        """
        new = self.follow(partition, events)
        checkpoint = self.checkpoints[partition]
        entries, outbound = checkpoint.emitted, self.outbound[partition]
        for event, time_ms, _, key, trace in new:
            if type(event) is TransactionCompleted:
                pair = entries_of(
                    event, partition, time_ms, sequence=entries, previous=self._heads[partition]
                )
                entries += 2
                self._heads[partition] = bytes.fromhex(pair[1].hash)
                self._rows += (entry_row(partition, entry) for entry in pair)
                if entries > checkpoint.sent:
                    outbound += (OutboundEvent(entry, time_ms, key, trace) for entry in pair)
        self.checkpoints[partition] = checkpoint._replace(emitted=entries, sent=max(checkpoint.sent, entries))

    @property
    def size(self) -> int:
        """The number of rows."""
        return len(self._rows)

    def payload(self) -> str:
        """Return the COPY payload."""
        return "".join(self._rows)


def entry_row(partition: int, entry: Entry) -> str:
    """Return an entry as a row of a COPY payload."""
    is_wallet = entry.balance_after is not None
    return (
        f"{partition}\t{entry.sequence}\t{hex_of(entry.transaction_id)}\t{entry.kind}\t{entry.direction}"
        f"\t{entry.account if is_wallet else NULL}\t{NULL if is_wallet else entry.account}"
        f"\t{entry.amount}\t{entry.currency}"
        f"\t{entry.balance_after if is_wallet else NULL}\t{entry.wallet_version if is_wallet else NULL}"
        f"\t{timestamp(entry.occurred_at_ms)}\t\\\\x{entry.hash}\t{entry.effective_at or NULL}\n"
    )
