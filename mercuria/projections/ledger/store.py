"""The store of the ledger projection: writes the table `ledger_entries`."""

import logging
from collections.abc import Mapping
from typing import Any

from mercuria.domain.ledger import NO_HASH
from mercuria.postgres.database import queries
from mercuria.projections.checkpoints import Checkpoint
from mercuria.projections.ledger.rows import LedgerRows
from mercuria.projections.store import ProjectionTables, copy

log = logging.getLogger(__name__)

_SQL = queries("mercuria.projections.ledger", "store.sql")


class LedgerTables(ProjectionTables[str]):
    """The table of the ledger's entries.

    The store does not write a partition whose chain does not end where its checkpoint says: then the ledger
    was tampered with, and no entry can be appended. Money still moves, and the other partitions go on.
    """

    name = "ledger"

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.broken: dict[int, int] = {}
        """The partitions that are not written, with the number of the last entry of their chain."""
        self._heads: dict[int, bytes] = {}

    def rows(self, checkpoints: Mapping[int, Checkpoint]) -> LedgerRows:
        """Return empty rows that follow `checkpoints`, which `begin` has just returned."""
        return LedgerRows(checkpoints, self._heads)

    def _look(self, cursor: Any, checkpoints: dict[int, Checkpoint]) -> None:
        cursor.execute(_SQL["heads"], {"partitions": list(checkpoints)})
        heads = {partition: (sequence, bytes(hash_)) for partition, sequence, hash_ in cursor}
        for partition, checkpoint in list(checkpoints.items()):
            sequence, self._heads[partition] = heads.get(partition, (0, NO_HASH))
            if sequence == checkpoint.emitted:
                self.broken.pop(partition, None)
                continue
            del checkpoints[partition]
            if self.broken.get(partition) != sequence:
                self.broken[partition] = sequence
                log.error(
                    "The ledger of partition %d ends with entry %d, and should end with %d: somebody has changed it,"
                    " and nothing more is entered there. `mercuria ledger verify` says what is wrong.",
                    partition,
                    sequence,
                    checkpoint.emitted,
                )

    def _write(self, cursor: Any, rows: str) -> None:
        copy(cursor, _SQL["copy_entries"], rows)
