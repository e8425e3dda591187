"""The ledger: double entry.

A completed transaction is a debit and a credit of the same amount; nothing else is entered.

Debit and credit are named as for a liability, since a wallet is one to its keeper: a credit raises the
wallet's balance. What comes in is debited from an external account, and what goes out is
credited to another (`domain.kinds`).

Each partition of the log has a chain: the hash of every entry is computed from its content and the previous
hash.
"""

from hashlib import sha256
from typing import Literal
from uuid import UUID

from msgspec import UNSET, Struct, UnsetType

from mercuria.domain.commands import WalletSide
from mercuria.domain.kinds import ACCOUNTS, Kind
from mercuria.domain.transaction import TransactionCompleted
from mercuria.domain.uuids import uuid_v8

Direction = Literal["debit", "credit"]

NO_HASH = bytes(32)
"""The previous hash of the first entry of a chain."""


class Entry(Struct, frozen=True, gc=False, kw_only=True):
    """One side of a transaction. It is also the data of the event `ledger.entry_created`.

    `sequence` counts the entries of its partition from 1. `account` is a wallet's id or an external account; only
    wallets have an owner, a balance and a version, which are those right after. `hash` is in hexadecimal digits.
    `effective_at` is missing where the transaction has none, and is part of the hash where it has one.
    """

    id: UUID
    sequence: int
    transaction_id: UUID
    kind: Kind
    account: str
    owner_id: UUID | None
    direction: Direction
    amount: int
    currency: str
    balance_after: int | None
    wallet_version: int | None
    occurred_at_ms: int
    hash: str
    effective_at: str | UnsetType = UNSET


def entries_of(
    event: TransactionCompleted, partition: int, occurred_at_ms: int, *, sequence: int, previous: bytes
) -> tuple[Entry, Entry]:
    """Return the debit and the credit of a completed transaction.

    Args:
        sequence: the number of the last entry before them in the partition's chain, 0 for none.
        previous: the hash of that entry.
    """
    external = ACCOUNTS[event.kind]
    debit = _entry(
        event,
        "debit",
        event.from_wallet,
        external.debit,
        partition,
        occurred_at_ms,
        sequence + 1,
        previous,
    )
    credit = _entry(
        event,
        "credit",
        event.to_wallet,
        external.credit,
        partition,
        occurred_at_ms,
        sequence + 2,
        bytes.fromhex(debit.hash),
    )
    return debit, credit


def hash_after(
    previous: bytes,
    partition: int,
    sequence: int,
    transaction_id: UUID | str,
    kind: str,
    account: str,
    direction: str,
    amount: int,
    currency: str,
    balance_after: int | None,
    wallet_version: int | None,
    occurred_at_ms: int,
    effective_at: str | UnsetType | None = None,
) -> bytes:
    """Return the hash of an entry that follows the one whose hash is `previous`.

    An entry without an effective date has the same hash as before effective dates were introduced.
    """
    balance = "" if balance_after is None else balance_after
    version = "" if wallet_version is None else wallet_version
    content = (
        f"{partition}|{sequence}|{transaction_id}|{kind}|{account}|{direction}|{amount}|{currency}"
        f"|{balance}|{version}|{occurred_at_ms}"
    )
    if effective_at:
        content += f"|{effective_at}"
    return sha256(previous + content.encode()).digest()


def entry_id(hash_: bytes) -> UUID:
    """Return the id of the entry with a hash: a UUID of version 8 from the first half of the hash."""
    return uuid_v8(hash_)


def _entry(
    event: TransactionCompleted,
    direction: Direction,
    side: WalletSide | None,
    external: str | None,
    partition: int,
    occurred_at_ms: int,
    sequence: int,
    previous: bytes,
) -> Entry:
    account = external if side is None else str(side.wallet_id)
    assert account is not None, "money that is in no wallet is in an external account"
    balance_after = None if side is None else side.balance
    wallet_version = None if side is None else side.version
    hash_ = hash_after(
        previous,
        partition,
        sequence,
        event.transaction_id,
        event.kind,
        account,
        direction,
        event.amount,
        event.currency,
        balance_after,
        wallet_version,
        occurred_at_ms,
        event.effective_at,
    )
    return Entry(
        id=entry_id(hash_),
        sequence=sequence,
        transaction_id=event.transaction_id,
        kind=event.kind,
        account=account,
        owner_id=None if side is None else side.owner_id,
        direction=direction,
        amount=event.amount,
        currency=event.currency,
        balance_after=balance_after,
        wallet_version=wallet_version,
        occurred_at_ms=occurred_at_ms,
        hash=hash_.hex(),
        effective_at=event.effective_at,
    )
