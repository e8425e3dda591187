"""The rows of the balances table, in RocksDB and in its changelog, for workers and for read-only clients.

In each partition, the key of a wallet is the 16 bytes of its id, and the key of the position is `position`.
"""

from collections.abc import Iterable, Iterator

import msgspec
from msgspec import Struct

from mercuria.domain.wallet import Wallet

POSITION_KEY = b"position"
OFFSET_KEY = b"__faust\0offset__"
"""Under this key, Faust's store keeps its own offset in RocksDB, among the rows."""

encode = msgspec.msgpack.Encoder(uuid_format="bytes").encode
decode_wallet = msgspec.msgpack.Decoder(Wallet).decode


class AppliedPosition(Struct, frozen=True, array_like=True):
    """How far a partition is decided: its last record, and the last origin by partition that sends legs."""

    offset: int = -1
    origins: dict[int, int] = {}


decode_position = msgspec.msgpack.Decoder(AppliedPosition).decode


def rows_of(wallets: Iterable[Wallet], position: AppliedPosition) -> list[tuple[bytes, bytes | None]]:
    """Return the rows of decided wallets, followed by the row of the position after them."""
    rows: list[tuple[bytes, bytes | None]] = [(wallet.id.bytes, encode(wallet)) for wallet in wallets]
    rows.append((POSITION_KEY, encode(position)))
    return rows


def read_rows(rows: Iterable[tuple[bytes, bytes]]) -> Iterator[Wallet | AppliedPosition]:
    """Decode the rows of a partition."""
    for key, value in rows:
        if key == POSITION_KEY:
            yield decode_position(value)
        elif key != OFFSET_KEY:
            yield decode_wallet(value)
