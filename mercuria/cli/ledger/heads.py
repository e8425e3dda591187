"""The end of the last verification without findings, stored in a file of the data directory."""

from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from mercuria.domain.ledger import NO_HASH
from mercuria.embedded.files import write_atomically

Number = Annotated[int, Meta(ge=0, le=2**63 - 1)]


class Head(Struct, frozen=True, forbid_unknown_fields=True):
    """The verified end of a chain: an entry, its hash in hexadecimal digits, and the topic's next record."""

    sequence: Number = 0
    hash: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")] = NO_HASH.hex()
    offset: Number = 0


Heads = dict[int, Head]
"""The heads by partition."""


class HeadsError(Exception):
    """The file is unusable; the message says why, and what to do."""


class _File(Struct, forbid_unknown_fields=True):
    cluster: str
    """The id of the Kafka cluster: offsets and hashes are valid only in that cluster."""
    heads: Heads


def read_heads(path: Path, cluster: str) -> Heads:
    """Return the heads of the last verification of this Kafka cluster; nothing if there was none.

    Raises:
        HeadsError: the file has another format, or belongs to another cluster.
    """
    try:
        if path.exists() and not path.is_file():
            raise HeadsError(_unusable(path, "it is not a file"))
        content = path.read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise HeadsError(_unusable(path, error.strerror or "it cannot be read")) from error
    try:
        kept = msgspec.json.decode(content, type=_File, strict=False)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _read_old(path, content)
    if kept.cluster != cluster:
        raise HeadsError(_unusable(path, "it belongs to another installation"))
    return kept.heads


def write_heads(path: Path, cluster: str, heads: Heads) -> None:
    """Store the end of a verification.

    Raises:
        OSError: the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = msgspec.to_builtins(_File(cluster, heads), str_keys=True)
    write_atomically(path, msgspec.json.encode(kept).decode())


def _read_old(path: Path, content: bytes) -> Heads:
    """Read a file of an earlier version, which did not name the cluster."""
    try:
        return msgspec.json.decode(content, type=Heads, strict=False)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise HeadsError(_unusable(path, "it does not hold what a verification writes")) from error


def _unusable(path: Path, why: str) -> str:
    return f"{path} cannot be used: {why}; move it away, or verify without --resume"
