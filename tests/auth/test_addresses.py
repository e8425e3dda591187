"""The client's address: the peer's, unless a trusted proxy says otherwise."""

from ipaddress import ip_network

import pytest

from mercuria.auth.rate_limits import network_of
from mercuria.config import Network
from mercuria.http.client_address import client_address, is_inside

PROXIES = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        # No proxy, or none that is trusted: what the client says of itself counts for nothing.
        ("198.51.100.7", [], "198.51.100.7"),
        ("198.51.100.7", ["1.1.1.1"], "198.51.100.7"),
        ("10.0.0.1", [], "10.0.0.1"),
        # One proxy, several, and what the client put before them.
        ("10.0.0.1", ["198.51.100.7"], "198.51.100.7"),
        ("10.0.0.1", ["1.1.1.1, 198.51.100.7"], "198.51.100.7"),
        ("10.0.0.1", ["198.51.100.7, 10.0.0.2"], "198.51.100.7"),
        ("10.0.0.1", ["1.1.1.1", "198.51.100.7 , 10.0.0.2"], "198.51.100.7"),
        ("fd00::1", ["2001:db8::7, 10.0.0.2"], "2001:db8::7"),
        ("::ffff:10.0.0.1", ["198.51.100.7"], "198.51.100.7"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        # As some proxies write it.
        ("10.0.0.1", ["198.51.100.7:4711"], "198.51.100.7"),
        ("10.0.0.1", ["[2001:db8::7]:4711"], "2001:db8::7"),
        ("10.0.0.1", ["[2001:db8::7]"], "2001:db8::7"),
        # What is no address: whoever sent it stands for it.
        ("10.0.0.1", ["unknown"], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.7, unknown"], "10.0.0.1"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.7, unknown, 10.0.0.2"], "10.0.0.2"),
        ("fe80::1%eth0", [], "fe80::1"),
        (None, ["198.51.100.7"], "-"),
        ("", [], "-"),
    ],
)
def test_whose_address_counts(peer: str | None, forwarded: list[str], address: str) -> None:
    assert client_address(peer, forwarded, PROXIES) == address


def test_without_trusted_proxies_only_the_peer_counts() -> None:
    assert client_address("10.0.0.1", ["198.51.100.7"], ()) == "10.0.0.1"


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("198.51.100.7", "198.51.100.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2::1", "2001:db8:1:2::"),
        ("2001:db8:1:3::1", "2001:db8:1:3::"),
        ("-", "-"),
    ],
)
def test_what_one_client_has_of_addresses(address: str, network: str) -> None:
    assert network_of(address) == network


LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))


@pytest.mark.parametrize(
    ("peer", "forwarded", "trusted", "expected"),
    [
        ("127.0.0.1", [], (), True),
        ("::1", [], (), True),
        ("::ffff:127.0.0.1", [], (), True),
        ("198.51.100.7", [], (), False),
        (None, [], (), False),
        # A proxy on loopback, which is trusted: the client counts.
        ("127.0.0.1", ["198.51.100.7"], LOOPBACK, False),
        ("127.0.0.1", ["127.0.0.1, 198.51.100.7"], LOOPBACK, False),
        ("127.0.0.1", ["127.0.0.1"], LOOPBACK, True),
        ("127.0.0.1", ["unknown"], LOOPBACK, False),
        ("127.0.0.1", [""], LOOPBACK, False),
        # One that is not trusted: nobody knows who asks.
        ("127.0.0.1", ["198.51.100.7"], (), False),
        ("127.0.0.1", ["127.0.0.1"], (), False),
        # The client claims to ask for another one.
        ("127.0.0.1", ["198.51.100.7, 10.0.0.1"], PROXIES, False),
        ("198.51.100.7", ["127.0.0.1"], PROXIES, False),
        ("10.0.0.1", ["127.0.0.1"], PROXIES, True),
    ],
)
def test_a_client_is_inside_when_that_is_known(
    peer: str | None, forwarded: list[str], trusted: tuple[Network, ...], expected: bool
) -> None:
    assert is_inside(peer, forwarded, trusted, LOOPBACK) is expected
