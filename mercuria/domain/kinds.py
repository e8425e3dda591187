"""Kinds of transactions, and the external accounts of the ledger that each of them moves money from or to."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

Kind = Literal["deposit", "withdrawal", "transfer"]


class Accounts(NamedTuple):
    """The external accounts of a kind of transaction: where the money comes from and where it goes.

    None stands for a wallet.
    """

    debit: str | None
    credit: str | None


ACCOUNTS: Mapping[str, Accounts] = {
    "deposit": Accounts("external:deposits", None),
    "withdrawal": Accounts(None, "external:withdrawals"),
    "transfer": Accounts(None, None),
}
"""The external accounts by kind."""
