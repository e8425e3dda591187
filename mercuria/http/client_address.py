"""The client address of a request: the peer's, or the one that a trusted proxy has forwarded."""

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address

from mercuria.config import Network

Address = IPv4Address | IPv6Address

NOWHERE = "-"
"""The placeholder for a peer without an address, as on a Unix socket."""


def client_address(peer: str | None, forwarded: Iterable[str], trusted: Sequence[Network]) -> str:
    """Return the address of the client.

    Each proxy appends the address of its peer to `X-Forwarded-For`. So the list is read from its end for as
    long as the entries are those of trusted proxies: the first address that is not a trusted proxy's is the
    client's. The client may have forged all entries before it.

    Args:
        peer: the address at the other end of the connection.
        forwarded: the values of the request's `X-Forwarded-For` headers, in their order.
        trusted: the networks of proxies.
    """
    return _walk(peer, forwarded, trusted)[0]


def is_inside(
    peer: str | None, forwarded: Iterable[str], trusted: Sequence[Network], inside: Sequence[Network]
) -> bool:
    """Return whether the client is provably in one of the networks `inside`.

    There is no proof if an untrusted proxy has forwarded an address, or if the header of a trusted one is
    malformed: a proxy on loopback does not make its clients local.
    """
    address, is_known = _walk(peer, forwarded, trusted)
    parsed = _parse(address)
    return is_known and parsed is not None and _is_in(parsed, inside)


def _walk(peer: str | None, forwarded: Iterable[str], trusted: Sequence[Network]) -> tuple[str, bool]:
    """Return the address of the client, and whether trusted proxies wrote all forwarded addresses."""
    address = _parse(peer or "")
    if address is None:
        return NOWHERE, False
    hops = [hop for value in forwarded for hop in value.split(",")]
    while hops and _is_in(address, trusted):
        before = _parse(hops.pop())
        if before is None:
            return str(address), False
        address = before
    return str(address), not hops


def _is_in(address: Address, networks: Sequence[Network]) -> bool:
    return any(address in network for network in networks)


def _parse(text: str) -> Address | None:
    """Return the address in `text`, which may have a port as some proxies write it."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped or address
