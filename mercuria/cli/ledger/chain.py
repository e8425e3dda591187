"""One chain of the ledger: checks its rows in PostgreSQL against themselves and the ledger topic.

This module reads nothing itself.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple
from uuid import UUID

from msgspec import Struct, field

from mercuria.domain.kinds import ACCOUNTS
from mercuria.domain.ledger import NO_HASH, entry_id, hash_after

SHOWN = 20
"""How many findings are printed; all are counted."""


class Row(NamedTuple):
    """An entry in PostgreSQL."""

    sequence: int
    transaction_id: str
    kind: str
    account: str
    direction: str
    amount: int
    currency: str
    balance_after: int | None
    wallet_version: int | None
    occurred_at_ms: int
    effective_at: str | None
    hash: bytes


class Findings(Struct):
    """The findings: the first sentences, and the total number."""

    count: int = 0
    sentences: list[str] = field(default_factory=list)

    def add(self, sentence: str) -> None:
        """Add a finding."""
        self.count += 1
        if len(self.sentences) < SHOWN:
            self.sentences.append(sentence)


class Chain:
    """Checks the rows of a partition, in order, starting after the entry `sequence` with a hash."""

    def __init__(self, partition: int, findings: Findings, sequence: int = 0, head: bytes = NO_HASH) -> None:
        self.partition = partition
        self.findings = findings
        self.sequence = sequence
        self.head = head
        self.debits: defaultdict[str, int] = defaultdict(int)
        self.credits: defaultdict[str, int] = defaultdict(int)
        self._debit: Row | None = None

    def take(self, rows: Iterable[Row], published: Mapping[int, bytes]) -> None:
        """Check the next rows.

        Args:
            published: by number, the hashes of the topic's events; a row whose number is missing is not
                compared.
        """
        for row in rows:
            if row.sequence != self.sequence + 1:
                self._say(
                    self.sequence + 1, row, f"it is missing: the next one in PostgreSQL is {row.sequence}."
                )
                self._debit = None
            wanted = hash_after(
                self.head,
                self.partition,
                row.sequence,
                row.transaction_id,
                row.kind,
                row.account,
                row.direction,
                row.amount,
                row.currency,
                row.balance_after,
                row.wallet_version,
                row.occurred_at_ms,
                row.effective_at,
            )
            if wanted != row.hash and row.sequence == self.sequence + 1:
                self._say(
                    row.sequence, row, "its hash is not made of its content and of the entry before it."
                )
            elif published.get(row.sequence, row.hash) != row.hash:
                self._say(row.sequence, row, "the ledger topic has another entry there.")
            self._check(row)
            self.sequence, self.head = row.sequence, row.hash

    def end(self) -> None:
        """Mark the end of the rows."""
        if self._debit is not None:
            self._say(self._debit.sequence, self._debit, "it is a debit without a credit behind it.")

    def _check(self, row: Row) -> None:
        sums = self.debits if row.direction == "debit" else self.credits
        sums[row.currency] += row.amount
        external = getattr(ACCOUNTS.get(row.kind), row.direction, None)
        if row.account != external if external else row.account.startswith("external:"):
            self._say(
                row.sequence, row, f"{row.account} is no account for the {row.direction} of a {row.kind}."
            )
        if row.direction == "debit":
            self._debit = row
            return
        debit, self._debit = self._debit, None
        if debit is None or debit.sequence + 1 != row.sequence:
            self._say(row.sequence, row, "it is a credit without a debit before it.")
        elif _common(debit) != _common(row):
            self._say(row.sequence, row, "it does not balance the debit before it.")

    def _say(self, sequence: int, row: Row, what: str) -> None:
        names = f", id {entry_id(row.hash)}, transaction {UUID(row.transaction_id)}"
        self.findings.add(
            f"Entry {self.partition}-{sequence}{names if sequence == row.sequence else ''}: {what}"
        )


def _common(row: Row) -> tuple[object, ...]:
    return row.transaction_id, row.kind, row.amount, row.currency, row.occurred_at_ms, row.effective_at
