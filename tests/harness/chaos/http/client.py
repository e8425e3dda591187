"""A careful HTTP client: each answer is kept, and so is that none came."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple
from uuid import uuid4

import aiohttp
import msgspec

from mercuria.embedded.ports import LOOPBACK
from mercuria.embedded.stack import Stack
from mercuria.kafka.partitioning import Partitioner

LOST = 0
"""The status of an answer that did not come."""
ANSWER_TIMEOUT_S = 45.0
"""Longer than any request may take here."""
CONNECT_TIMEOUT_S = 5.0
ROUTED_WITHIN_S = 60.0
NOT_SENT = frozenset({"wallets_unavailable", "overloaded", "shutting_down", "database_unavailable"})
"""Codes of refusals that a POST gets before anything of it is sent to a wallet."""
KEPT_HEADERS = ("Retry-After", "Location", "Idempotent-Replayed")


class Answer(NamedTuple):
    """The answer to one request; times are of the monotonic clock."""

    status: int
    body: Any
    headers: Mapping[str, str]
    began_s: float
    ended_s: float
    port: int

    @property
    def code(self) -> str:
        """The code of a problem; "" where it is none."""
        return str(self.body.get("code", "")) if self.status >= 400 and isinstance(self.body, dict) else ""

    @property
    def name(self) -> str:
        """The name under which it is counted: its status, with the code of a problem."""
        if self.status == LOST:
            return "lost"
        return f"{self.status} {self.code}".strip()

    @property
    def is_final(self) -> bool:
        """Whether it is the wallet's decision, which a retry would get again."""
        return self.status == 201 or 400 <= self.status < 500

    @property
    def is_replayed(self) -> bool:
        """Whether it is marked as given before."""
        return self.headers.get("Idempotent-Replayed") == "true"

    @property
    def content(self) -> Any:
        """What has to be the same each time: the body, without the request's own id where it is a problem."""
        if self.code:
            return {name: value for name, value in self.body.items() if name != "instance"}
        return self.body

    @property
    def duration_s(self) -> float:
        """The time from the request to the answer."""
        return self.ended_s - self.began_s

    @property
    def retry_after_s(self) -> float:
        """How long to wait before a retry; half a second without a Retry-After header."""
        return float(self.headers.get("Retry-After", "0.5"))


class Client:
    """Sends requests to workers, each on its own port; one without an answer within `timeout_s` counts as lost."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.timeout_s = ANSWER_TIMEOUT_S
        self._session = session

    async def request(
        self,
        port: int,
        method: str,
        path: str,
        *,
        token: str | None = None,
        body: Any = None,
        key: str | None = None,
        prefer: str | None = None,
    ) -> Answer:
        """Send a request, and return its answer."""
        began_s = time.monotonic()
        try:
            async with self._session.request(
                method,
                f"http://{LOOPBACK}:{port}{path}",
                headers=_headers(token, body, key, prefer),
                data=msgspec.json.encode(body) if body is not None else None,
                timeout=aiohttp.ClientTimeout(total=self.timeout_s, connect=CONNECT_TIMEOUT_S),
            ) as answer:
                content = await answer.read()
                kept = {name: answer.headers[name] for name in KEPT_HEADERS if name in answer.headers}
                decoded = msgspec.json.decode(content) if content else None
                return Answer(answer.status, decoded, kept, began_s, time.monotonic(), port)
        except (aiohttp.ClientError, OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            return Answer(LOST, {"error": repr(error)}, {}, began_s, time.monotonic(), port)


def _headers(token: str | None, body: Any, key: str | None, prefer: str | None) -> dict[str, str]:
    headers = {
        "Authorization": f"Bearer {token}" if token else None,
        "Content-Type": "application/json" if body is not None else None,
        "Idempotency-Key": key,
        "Prefer": prefer,
    }
    return {name: value for name, value in headers.items() if value is not None}


@asynccontextmanager
async def open_client() -> AsyncIterator[Client]:
    """Open a client with as many connections as it needs."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        yield Client(session)


async def wait_until_routed(client: Client, stack: Stack, token: str) -> None:
    """Wait until every worker knows the owner of each partition, and the owners decide."""
    partitions = int(stack.env["MERCURIA_PARTITIONS"])
    partitioner = Partitioner(partitions)
    # None of these wallets exists, which only the owner of its partition can answer.
    unknown = {partitioner.of(id_).partition: id_ for id_ in (uuid4() for _ in range(40 * partitions))}
    async with asyncio.timeout(ROUTED_WITHIN_S):
        for id_ in unknown.values():
            for worker in stack.workers:
                path = f"/api/v1/wallets/{id_}?consistency=strong"
                while (await client.request(worker.port, "GET", path, token=token)).status != 404:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
