"""Writes the ledger: PostgreSQL's `ledger_entries`."""

import logging
from collections.abc import Mapping
from typing import Any

from mercuria.domain.ledger import NO_HASH
from mercuria.postgres.database import queries
from mercuria.projections.checkpoints import Place
from mercuria.projections.ledger.rows import LedgerRows
from mercuria.projections.store import StageTables, copy

log = logging.getLogger(__name__)

_SQL = queries("mercuria.projections.ledger", "store.sql")


class LedgerTables(StageTables[str]):
    """The table of the ledger's entries.

    A partition whose chain ends elsewhere than its place says is left alone: somebody has changed the ledger, and
    nothing can be entered behind that. Money moves on meanwhile, and the other partitions, too.
    """

    stage = "ledger"
    outbox = "ledger_outbox"

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.broken: dict[int, int] = {}
        """By partition that is left alone, the number of the entry with which its chain ends."""
        self._heads: dict[int, bytes] = {}

    def rows(self, places: Mapping[int, Place]) -> LedgerRows:
        """Return rows that follow `places`, which `begin` has just returned."""
        return LedgerRows(places, self._heads)

    def _look(self, cursor: Any, places: dict[int, Place]) -> None:
        cursor.execute(_SQL["heads"], {"partitions": list(places)})
        heads = {partition: (sequence, bytes(hash_)) for partition, sequence, hash_ in cursor}
        for partition, place in list(places.items()):
            sequence, self._heads[partition] = heads.get(partition, (0, NO_HASH))
            if sequence == place.told:
                self.broken.pop(partition, None)
                continue
            del places[partition]
            if self.broken.get(partition) != sequence:
                self.broken[partition] = sequence
                log.error(
                    "The ledger of partition %d ends with entry %d, and should end with %d: somebody has changed it,"
                    " and nothing more is entered there. `mercuria ledger verify` says what is wrong.",
                    partition,
                    sequence,
                    place.told,
                )

    def _write(self, cursor: Any, rows: str) -> None:
        copy(cursor, _SQL["copy_entries"], rows)
