"""A worker with a planted bug: `python planted_worker.py BUG`. The kill test must find each.

`position-first` keeps what was decided before it tells anybody; killed between the two, nobody ever hears of it.
`no-receipts` knows no command id; a command that is sent twice counts twice.
`poison` cannot decide, project or enter what has one of the references in `POISONS`.
"""

import asyncio
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from mercuria.agents import batch, wallets
from mercuria.cli import main
from mercuria.projections.ledger import rows as ledger_rows
from mercuria.projections.wallets import rows as projected_rows

WINDOW_S = 0.5
"""How long the position is ahead of the outputs: long enough for a kill to hit it."""

WINDOW = "window"
"""The file in the data directory that is there while a position is ahead of its outputs."""


async def position_first(partition: int, records: Sequence[Any], _more: Iterable[Any]) -> None:
    """Do what `wallets.process` does, in the wrong order."""
    window = wallets.settings.data_dir / WINDOW
    async with wallets.balances.lock(partition):
        decided = wallets.balances.position(partition).offset
        waiting = [record for record in records if record.offset > decided]
        while waiting:
            batch = wallets.decide(partition, waiting)
            first = waiting[0]
            await wallets.balances.keep(partition, batch.wallets, batch.position, first.timestamp)
            await wallets.balances.kept(partition)
            window.touch()
            await asyncio.sleep(WINDOW_S)
            window.unlink(missing_ok=True)
            receipt_rows = wallets.receipt_rows_of(batch, first, first.timestamp)
            receipts_offset = await wallets.publish(batch, receipt_rows)
            wallets.receipts.write(partition, receipt_rows, receipts_offset)
            waiting = [record for record in waiting if record.offset > batch.offset]


def no_receipts(_partition: int, _ids: list[Any]) -> dict[Any, Any]:
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
        wallets.process = position_first
    elif bug == "no-receipts":
        wallets.receipts.find = no_receipts  # type: ignore[method-assign]
    elif bug == "poison":
        batch.weigh = poisoned(batch.weigh, DECIDE)
        projected_rows.transaction_of = poisoned(projected_rows.transaction_of, PROJECT)
        ledger_rows.entries_of = poisoned(ledger_rows.entries_of, ENTER)
    else:
        sys.exit(f"There is no bug called {bug}.")


if __name__ == "__main__":
    plant(sys.argv.pop())
    sys.argv.append("worker")
    main()
