"""Rows of PostgreSQL's table `ledger_entries`, made from completed transactions, as the text that COPY takes."""

from collections import defaultdict
from collections.abc import Iterable, Mapping

from mercuria.adapters.positions import Place
from mercuria.adapters.projected_rows import NULL, Tells, Told, hex_of, timestamp
from mercuria.domain.ledger import Entry, entries_of
from mercuria.domain.transaction import TransactionCompleted


class MissingEventError(Exception):
    """The transaction topic misses an event, so that the ledger would miss a transaction."""


class LedgerRows:
    """Entries of some transactions.

    Args:
        places: how far each partition is that `take` may get events of.
        heads: the hash of the last entry of each of them.
    """

    def __init__(self, places: Mapping[int, Place], heads: Mapping[int, bytes]) -> None:
        self.places = dict(places)
        self.tells: defaultdict[int, list[Tells]] = defaultdict(list)
        """By partition, the entries that are told to the next topic; what was told before is left out."""
        self._before = dict(places)
        self._heads = dict(heads)
        self._rows: list[str] = []

    def take(self, partition: int, told: Iterable[Told]) -> None:
        """Take records of a partition that follow those before; what is entered already is left out.

        Raises:
            MissingEventError: the numbers of the events do not follow each other.
        """
        place = self.places[partition]
        read, sequence, entries, tells = place.read, place.sequence, place.told, self.tells[partition]
        for event, time_ms, offset, key, trail in told:
            if offset <= read:
                continue
            read = offset
            if event.sequence <= sequence:
                continue
            if event.sequence != sequence + 1:
                raise MissingEventError(
                    f"Partition {partition} of the transaction topic goes on with number {event.sequence} at"
                    f" {offset}, and had {sequence} before."
                )
            sequence = event.sequence
            if type(event) is TransactionCompleted:
                pair = entries_of(
                    event, partition, time_ms, sequence=entries, previous=self._heads[partition]
                )
                entries += 2
                self._heads[partition] = bytes.fromhex(pair[1].hash)
                self._rows += (entry_row(partition, entry) for entry in pair)
                if entries > place.sent:
                    tells += (Tells(entry, time_ms, key, trail) for entry in pair)
        self.places[partition] = Place(read, sequence=sequence, told=entries, sent=max(place.sent, entries))

    @property
    def size(self) -> int:
        """How many rows there are."""
        return len(self._rows)

    @property
    def moved(self) -> dict[int, Place]:
        """The partitions whose place is another one now."""
        return {number: place for number, place in self.places.items() if place != self._before[number]}

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
        f"\t{timestamp(entry.occurred_at_ms)}\t\\\\x{entry.hash}\n"
    )
