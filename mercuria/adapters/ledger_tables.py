"""Writes the ledger: PostgreSQL's `ledger_entries`."""

from collections.abc import Mapping
from typing import Any

from mercuria.adapters.ledger_rows import LedgerRows
from mercuria.adapters.positions import Place
from mercuria.adapters.postgres import DatabaseUnavailable, queries
from mercuria.adapters.stage_tables import StageTables, copy
from mercuria.domain.ledger import NO_HASH

STAGE = "ledger"

_SQL = queries("mercuria.adapters", "ledger_tables.sql")


class LedgerTables(StageTables[str]):
    """The table of the ledger's entries."""

    stage = STAGE
    outbox = "ledger_outbox"

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._heads: dict[int, bytes] = {}

    def rows(self, places: Mapping[int, Place]) -> LedgerRows:
        """Return rows that follow `places`, which `begin` has just returned."""
        return LedgerRows(places, self._heads)

    def _look(self, cursor: Any, places: Mapping[int, Place]) -> None:
        cursor.execute(_SQL["heads"], {"partitions": list(places)})
        heads = {partition: (sequence, bytes(hash_)) for partition, sequence, hash_ in cursor}
        for partition, place in places.items():
            sequence, self._heads[partition] = heads.get(partition, (0, NO_HASH))
            if sequence != place.told:
                # Nothing can be entered behind it. Money moves on, and whoever watches sees that this stage does not.
                raise DatabaseUnavailable(
                    f"The ledger of partition {partition} ends with entry {sequence}, and should end with"
                    f" {place.told}: somebody has changed it. `mercuria ledger verify` says more."
                )

    def _write(self, cursor: Any, rows: str) -> None:
        copy(cursor, _SQL["copy_entries"], rows)
