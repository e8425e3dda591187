"""A worker with a planted bug: `python planted_worker.py BUG`. The kill test must find each.

`position-first` keeps what was decided before it tells anybody; killed between the two, nobody ever hears of it.
`no-receipts` knows no command id; a command that is sent twice counts twice.
`poison` cannot decide, project or enter what has one of the references in `POISONS`.
"""

import asyncio
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from mercuria.agents import batch
from mercuria.agents.wallets import WalletAgent, receipt_rows_of
from mercuria.cli import main
from mercuria.projections.ledger import rows as ledger_rows
from mercuria.projections.wallets import rows as projected_rows
from mercuria.tables.receipts import ReceiptsTable

WINDOW_S = 0.5
"""How long the position is ahead of the outputs: long enough for a kill to hit it."""

WINDOW = "window"
"""The file in the data directory that is there while a position is ahead of its outputs."""


async def position_first(
    self: WalletAgent, partition: int, records: Sequence[Any], _more: Callable[[], Iterable[Any]]
) -> None:
    """Do what `WalletAgent.process` does, in the wrong order."""
    window = self.app.settings.data_dir / WINDOW
    async with self.balances.lock(partition):
        decided = self.balances.position(partition).offset
        waiting = [record for record in records if record.offset > decided]
        while waiting:
            batch = self.decide(partition, waiting)
            first = waiting[0]
            await self.balances.keep(partition, batch.wallets, batch.position, first.timestamp)
            await self.balances.kept(partition)
            window.touch()
            await asyncio.sleep(WINDOW_S)
            window.unlink(missing_ok=True)
            receipt_rows = receipt_rows_of(self.receipts, batch, first, first.timestamp)
            receipts_offset = await self.publish(batch, receipt_rows)
            self.receipts.write(partition, receipt_rows, receipts_offset)
            waiting = [record for record in waiting if record.offset > batch.offset]


def no_receipts(_self: ReceiptsTable, _partition: int, _ids: list[Any]) -> dict[Any, Any]:
    """Find nothing."""
    return {}


POISONS = DECIDE, PROJECT, ENTER = "poison: decide", "poison: project", "poison: enter"
"""References of movements that end a worker at one place or another."""


class PlantedError(Exception):
    """A bug."""


def poisoned(do: Callable[..., Any], poison: str) -> Callable[..., Any]:
    """Return a function that fails where its first argument has a reference, and else does what `do` does."""

    def either(first: Any, *others: Any, **more: Any) -> Any:
        if getattr(first, "reference", None) == poison:
            raise PlantedError(poison)
        return do(first, *others, **more)

    return either


def plant(bug: str) -> None:
    """Put a bug into this process's wallet agent."""
    if bug == "position-first":
        WalletAgent.process = position_first  # type: ignore[method-assign]
    elif bug == "no-receipts":
        ReceiptsTable.find = no_receipts  # type: ignore[method-assign]
    elif bug == "poison":
        batch.evaluate = poisoned(batch.evaluate, DECIDE)
        projected_rows.transaction_of = poisoned(projected_rows.transaction_of, PROJECT)
        ledger_rows.entries_of = poisoned(ledger_rows.entries_of, ENTER)
    else:
        sys.exit(f"There is no bug called {bug}.")


if __name__ == "__main__":
    plant(sys.argv.pop())
    sys.argv.append("worker")
    main()
