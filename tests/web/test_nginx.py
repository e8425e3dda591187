"""nginx before two workers, as the repository configures it: what it answers itself, and what it hides and tells."""

import ipaddress
import socket
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from mercuria.embedded.stack import Stack
from mercuria.redis.client import connect as connect_redis
from mercuria.web.endpoint import ENDPOINTS
from tests.web.api_client import ApiClient, ApiClients, refusal, until
from tests.web.nginx import Nginx, nginx_before
from tests.web.wire import Reply, Wire, connect

KEYS = "/.well-known/jwks.json"


@pytest.fixture(scope="module")
def nginx(settled: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    """Return an nginx before the workers of the shared stack."""
    with nginx_before(
        [worker.port for worker in settled.workers], tmp_path_factory.mktemp("nginx")
    ) as running:
        yield running


@pytest.fixture
def max_behind(nginx: Nginx, clients: ApiClients) -> ApiClient:
    """Return somebody who asks nginx."""
    max_ = clients.user()
    max_.ports = [nginx.port]
    return max_


async def logged_as(nginx: Nginx, request_id: str, path: str) -> list[dict[str, Any]]:
    """Return what nginx has logged of a request; it does so after its answer."""

    async def look() -> list[dict[str, Any]]:
        return [each for each in nginx.log() if (each["request_id"], each["path"]) == (request_id, path)]

    return await until(look, bool)


async def raw(nginx: Nginx, data: bytes) -> Reply:
    """Send bytes, and read an answer."""
    async with connect(nginx.port) as wire:
        await wire.send(data)
        return await wire.reply()


@pytest.mark.parametrize(
    ("request_line_and_fields", "body", "expected"),
    [
        ("GET /nothing HTTP/1.1", b"", (404, "not_found")),
        (f"POST {KEYS} HTTP/1.1\r\nContent-Length: 65537", bytes(65537), (413, "body_too_large")),
        (f"POST {KEYS} HTTP/1.1\r\nContent-Length: 10000000000", b"", (413, "body_too_large")),
        (f"GET /{'a' * 9000} HTTP/1.1", b"", (414, "uri_too_long")),
        (f"GET {KEYS} HTTP/1.1\r\nA: {'a' * 9000}", b"", (431, "headers_too_large")),
        (f"TRACE {KEYS} HTTP/1.1", b"", (405, "method_not_allowed")),
        ("PAY ME", b"", (400, "bad_request")),
        (f"GET {KEYS} HTTP/1.1\r\nHost: b", b"", (400, "bad_request")),
        (f"GET {KEYS} HTTP/9.1", b"", (505, "internal_error")),
        ("GET /problem HTTP/1.1", b"", (404, "not_found")),
    ],
)
async def test_what_nginx_refuses_is_a_problem(
    nginx: Nginx, request_line_and_fields: str, body: bytes, expected: tuple[int, str]
) -> None:
    reply = await raw(nginx, f"{request_line_and_fields}\r\nHost: a\r\n\r\n".encode() + body)
    assert refusal(reply) == expected
    assert reply.headers.get_all("Cache-Control") == ["no-store"]
    assert reply.headers["Server"] in ("nginx", "Mercuria")


@pytest.mark.parametrize(
    "path",
    [
        *(
            "/metrics",
            "/metrics/",
            "//metrics",
            "/%6detrics",
            "/a/../metrics",
            "/a/%2e%2e/metrics",
            "/./metrics",
        ),
        *(
            "/health/ready",
            "/health/live",
            "/health",
            "/%2fhealth/ready",
            "/health%2fready",
            "http://a/health/live",
        ),
        "/nginx-alive/",
    ],
)
async def test_what_is_for_operators_is_not_reached_through_nginx(nginx: Nginx, path: str) -> None:
    reply = await raw(nginx, f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    assert refusal(reply) == (404, "not_found")


async def test_what_workers_answer_goes_on_as_it_is(max_behind: ApiClient) -> None:
    wallet_id = await max_behind.wallet(100)
    refused = await max_behind.withdraw(wallet_id, 101)
    assert refusal(refused) == (422, "insufficient_funds")
    assert await max_behind.balance(wallet_id) == 100


async def test_a_request_has_one_id_for_client_and_nginx_and_worker(nginx: Nginx) -> None:
    own = f"own.{uuid4()}"
    for fields, expected in (
        (f"X-Request-Id: {own}", own),
        ("X-Request-Id: a b", None),
        (f"X-Request-Id: {'a' * 65}", None),
        ("X-Request-Id: a\r\nX-Request-Id: b", None),
        ("A: b", None),
    ):
        for path in ("/api/v1/me", "/metrics"):
            reply = await raw(nginx, f"GET {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n".encode())
            assert len(reply.headers.get_all("X-Request-Id")) == 1
            id_ = reply.headers["X-Request-Id"]
            assert id_ == expected if expected else len(id_) == 32
            refusal(reply)
            logged = await logged_as(nginx, id_, path)
            assert [each["method"] for each in logged] == ["GET"]


async def test_a_client_has_the_address_that_it_comes_from_whatever_it_says(
    nginx: Nginx, settled: Stack
) -> None:
    redis = connect_redis(settled.env["MERCURIA_REDIS"])
    claims = [
        *("X-Forwarded-For: 198.51.100.7", "X-Forwarded-For: 127.0.0.1", "X_Forwarded_For: 198.51.100.8"),
        *("Forwarded: for=198.51.100.9", "X-Real-IP: 198.51.100.10"),
    ]
    body = f'{{"email": "{uuid4()}@example.com", "password": "not the right one"}}'.encode()
    try:
        async with connect(nginx.port, local_addr=("127.0.0.9", 0)) as wire:
            reply = await wire.ask(
                "POST", "/api/v1/login", "Content-Type: application/json", *claims, body=body
            )
        assert refusal(reply) == (401, "invalid_credentials")
        counted = [key.decode() async for key in redis.scan_iter("*login:address*", count=1000)]
    finally:
        await redis.aclose()
    assert any("127.0.0.9/" in key for key in counted), counted
    assert not any("198.51.100." in key for key in counted)


async def test_too_many_logins_from_one_address_do_not_reach_a_worker(nginx: Nginx) -> None:
    async def log_in(wire: Wire) -> Reply:
        return await wire.ask("POST", "/api/v1/login", "Content-Type: application/json", body=b"{}")

    async with connect(nginx.port, local_addr=("127.0.0.10", 0)) as wire:
        # One every two seconds, and 15 more at once; so many do not pass meanwhile.
        replies = [await log_in(wire) for _ in range(40)]
        refused = [reply for reply in replies if reply.status == 429]
        assert 15 <= len(replies) - len(refused) < 40
        assert {refusal(reply) for reply in refused} == {(429, "too_many_requests")}
        assert {reply.headers["Retry-After"] for reply in refused} == {"2"}
        # All else goes on, for this address, and for others.
        assert (await wire.ask("GET", KEYS)).status == 200
    async with connect(nginx.port, local_addr=("127.0.0.11", 0)) as wire:
        assert (await log_in(wire)).status == 400
    for reply in refused:
        logged = await logged_as(nginx, reply.headers["X-Request-Id"], "/api/v1/login")
        assert [(each["method"], each["worker"]) for each in logged] == [("POST", "")]


def test_nginx_repeats_nothing_that_changes_something() -> None:
    # It counts these as such; of all others it believes that they may be sent again. A PUT may: it sets a value.
    assert {each.method for each in ENDPOINTS} <= {"GET", "HEAD", "POST", "PATCH", "PUT"}


async def test_the_example_for_tls_is_all_that_is_needed(settled: Stack, tmp_path: Path) -> None:
    certificate = write_certificate(tmp_path)
    context = ssl.create_default_context(cafile=certificate)
    ports = [worker.port for worker in settled.workers]
    with nginx_before(ports, tmp_path, with_tls=True) as nginx:
        async with connect(nginx.port, ssl=context, server_hostname="localhost") as wire:
            found, missing = await wire.ask("GET", KEYS), await wire.ask("GET", "/metrics")
        assert found.status == 200 and refusal(missing) == (404, "not_found")
        for reply in (found, missing):
            assert reply.headers.get_all("Strict-Transport-Security") == ["max-age=63072000"]
        context.set_alpn_protocols(["h2"])
        with (
            socket.create_connection(("127.0.0.1", nginx.port)) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as secure,
        ):
            assert secure.selected_alpn_protocol() == "h2"
        refused = await raw(nginx, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert refusal(refused) == (400, "bad_request")


def write_certificate(folder: Path) -> Path:
    """Make a certificate for localhost that is signed with its own key, as nginx reads them."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    (folder / "certificate.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return folder / "certificate.pem"
