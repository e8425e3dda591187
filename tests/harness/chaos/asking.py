"""Asking over HTTP, as a careful client does it: each answer is kept, and so is that none came."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple
from uuid import uuid4

import aiohttp
import msgspec

from mercuria.embedded.ports import LOOPBACK
from mercuria.kafka.partitioning import Homes

LOST = 0
"""What stands for the status where no answer came."""
SILENCE_S = 45.0
"""Longer than anything may take here."""
CONNECTED_WITHIN_S = 5.0
SETTLED_WITHIN_S = 60.0
NOT_SENT = frozenset({"wallets_unavailable", "overloaded", "shutting_down", "database_unavailable"})
"""Codes of refusals that a POST gets before anything of it is sent to a wallet."""


class Answer(NamedTuple):
    """What was answered to one request, and when it was asked and answered, by the monotonic clock."""

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
        """What it is counted as: its status, with the code of a problem."""
        if self.status == LOST:
            return "lost"
        return f"{self.status} {self.code}".strip()

    @property
    def is_final(self) -> bool:
        """Whether it says what the wallet has decided, and asking again would give the same."""
        return self.status == 201 or 400 <= self.status < 500

    @property
    def is_replayed(self) -> bool:
        """Whether it says that it was given before."""
        return self.headers.get("Idempotent-Replayed") == "true"

    @property
    def content(self) -> Any:
        """What has to be the same each time: the body, without the request's own id where it is a problem."""
        if self.code:
            return {name: value for name, value in self.body.items() if name != "instance"}
        return self.body

    @property
    def retry_after_s(self) -> float:
        """How long to wait before asking again; half a second where nobody says."""
        return float(self.headers.get("Retry-After", "0.5"))


class Client:
    """Sends requests to workers, each on its own port; what is not answered within `patience_s` counts as lost."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.patience_s = SILENCE_S
        self._session = session

    async def ask(
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
        """Send a request, and return what was answered."""
        headers = {
            name: value
            for name, value in {
                "Authorization": f"Bearer {token}" if token else None,
                "Content-Type": "application/json" if body is not None else None,
                "Idempotency-Key": key,
                "Prefer": prefer,
            }.items()
            if value is not None
        }
        data = msgspec.json.encode(body) if body is not None else None
        began_s = time.monotonic()
        try:
            async with self._session.request(
                method,
                f"http://{LOOPBACK}:{port}{path}",
                headers=headers,
                data=data,
                timeout=aiohttp.ClientTimeout(total=self.patience_s, connect=CONNECTED_WITHIN_S),
            ) as answer:
                content = await answer.read()
                kept = {
                    name: answer.headers[name]
                    for name in ("Retry-After", "Location", "Idempotent-Replayed")
                    if name in answer.headers
                }
                decoded = msgspec.json.decode(content) if content else None
                return Answer(answer.status, decoded, kept, began_s, time.monotonic(), port)
        except (aiohttp.ClientError, OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            return Answer(LOST, {"error": repr(error)}, {}, began_s, time.monotonic(), port)


@asynccontextmanager
async def client() -> AsyncIterator[Client]:
    """Open a client with as many connections as it needs."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        yield Client(session)


async def settled(client: Client, ports: Sequence[int], partitions: int, token: str) -> None:
    """Wait until all workers know who owns each partition, and those decide."""
    homes = Homes(partitions)
    # None of these wallets is there, as only the owner of its partition can say.
    strangers = {homes.of(id_).partition: id_ for id_ in (uuid4() for _ in range(40 * partitions))}
    async with asyncio.timeout(SETTLED_WITHIN_S):
        for id_ in strangers.values():
            for port in ports:
                path = f"/api/v1/wallets/{id_}?consistency=strong"
                while (await client.ask(port, "GET", path, token=token)).status != 404:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
