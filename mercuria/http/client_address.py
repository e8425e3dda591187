"""Which address a request comes from: the peer's, or what a trusted proxy says of whom it got the request from."""

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address

from mercuria.config import Network

Address = IPv4Address | IPv6Address

NOWHERE = "-"
"""Stands for a peer that has no address, as on a Unix socket."""


def client_address(peer: str | None, forwarded: Iterable[str], trusted: Sequence[Network]) -> str:
    """Return the address of the client.

    Each proxy appends to `X-Forwarded-For` whom it got the request from, so the list is read from its end, as long as
    trusted proxies wrote it: the first address that is none of theirs is the client's. What stands before it, the
    client may have written itself.

    Args:
        peer: the address at the other end of the connection.
        forwarded: the values of the request's `X-Forwarded-For` headers, in their order.
        trusted: the networks of proxies.
    """
    return _walk(peer, forwarded, trusted)[0]


def is_inside(
    peer: str | None, forwarded: Iterable[str], trusted: Sequence[Network], inside: Sequence[Network]
) -> bool:
    """Return whether the client is known to be in one of the networks `inside`.

    It is not known where a proxy that is not trusted says on whose behalf it asks, or a trusted one says nothing that
    can be read: a proxy on loopback makes none of its clients local.
    """
    address, is_known = _walk(peer, forwarded, trusted)
    parsed = _parse(address)
    return is_known and parsed is not None and _is_in(parsed, inside)


def _walk(peer: str | None, forwarded: Iterable[str], trusted: Sequence[Network]) -> tuple[str, bool]:
    """Return the address of the client, and whether trusted proxies vouch for all that was forwarded."""
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
