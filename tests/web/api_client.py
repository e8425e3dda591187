"""Clients of the HTTP API of a stack: each has an access token of a user, and calls the worker that a test names."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar
from uuid import UUID, uuid4

import msgspec

from mercuria.auth.tokens import Caller, Role, Tokens
from mercuria.config import Settings
from mercuria.embedded.stack import Stack
from mercuria.kafka.partitioning import Partitioner
from tests.web.wire import PATIENCE_S, Reply, ask

API = "/api/v1"
LOOK_EVERY_S = 0.02

T = TypeVar("T")


@dataclass
class ApiClient:
    """A client for one user, with the ports of the workers. Paths lack `/api/v1`."""

    id: UUID
    token: str
    ports: list[int]

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *fields: str,
        key: str | None = None,
        prefer: str | None = None,
        worker: int = 0,
    ) -> Reply:
        """Ask one worker. `body` is bytes, or what is to be JSON; `fields` are further headers."""
        headers = [f"Authorization: Bearer {self.token}", *fields]
        if key is not None:
            headers.append(f"Idempotency-Key: {key}")
        if prefer is not None:
            headers.append(f"Prefer: {prefer}")
        if body is not None and not any(each.startswith("Content-Type:") for each in fields):
            headers.append("Content-Type: application/json")
        content = msgspec.json.encode(body) if not isinstance(body, bytes | None) else body
        return await ask(self.ports[worker], method, API + path, *headers, body=content)

    async def get(self, path: str, *, worker: int = 0) -> Reply:
        """Ask for something."""
        return await self.ask("GET", path, worker=worker)

    async def post(self, path: str, body: Any = None, *fields: str, **more: Any) -> Reply:
        """Ask for something to be done."""
        return await self.ask("POST", path, {} if body is None else body, *fields, **more)

    async def wallet(self, balance: int = 0, **fields: Any) -> str:
        """Open a wallet with a balance, and return its id."""
        opened = await self.post("/wallets", {"currency": "EUR"} | fields)
        assert opened.status == 201, opened
        wallet_id = str(opened.document["id"])
        if balance:
            assert (await self.deposit(wallet_id, balance)).status == 201
        return wallet_id

    async def deposit(self, wallet_id: str, amount: int, **more: Any) -> Reply:
        """Bring money into a wallet."""
        return await self.post(f"/wallets/{wallet_id}/deposit", {"amount": amount}, **more)

    async def withdraw(self, wallet_id: str, amount: int, **more: Any) -> Reply:
        """Take money out of a wallet."""
        return await self.post(f"/wallets/{wallet_id}/withdraw", {"amount": amount}, **more)

    async def transfer(self, source: str, target: str, amount: int, **more: Any) -> Reply:
        """Move money from a wallet to another."""
        body = {"from_wallet_id": source, "to_wallet_id": target, "amount": amount}
        return await self.post("/transactions", body, **more)

    async def shown(self, wallet_id: str, *, worker: int = 0) -> dict[str, Any]:
        """Return a wallet as a worker shows it."""
        reply = await self.get(f"/wallets/{wallet_id}", worker=worker)
        assert reply.status == 200, reply
        return reply.document

    async def balance(self, wallet_id: str, *, worker: int = 0) -> int:
        """Return what a wallet holds after all that Kafka has for it."""
        reply = await self.get(f"/wallets/{wallet_id}?consistency=strong", worker=worker)
        assert reply.status == 200, reply
        return int(reply.document["balance"])

    async def all_of(self, path: str, *, limit: int = 20) -> list[dict[str, Any]]:
        """Return all items of a list, page by page."""
        items: list[dict[str, Any]] = []
        page = await self.get(f"{path}{'&' if '?' in path else '?'}limit={limit}")
        while True:
            assert page.status == 200, page
            found = page.document
            assert len(found["data"]) == limit if found["has_more"] else len(found["data"]) <= limit
            items += found["data"]
            if not found["has_more"]:
                assert found["next_cursor"] is None
                return items
            cursor = found["next_cursor"]
            page = await self.get(f"{path}{'&' if '?' in path else '?'}limit={limit}&cursor={cursor}")


class ApiClients:
    """Makes clients for users that are not registered: their tokens are as good."""

    def __init__(self, stack: Stack) -> None:
        self.ports = [worker.port for worker in stack.workers]
        self._tokens = Tokens(Settings.from_env({"MERCURIA_DATA_DIR": str(stack.directory.path)}))

    def user(self) -> ApiClient:
        """Return a client for a new user."""
        return self._client("user")

    def operator(self) -> ApiClient:
        """Return a client for a new operator."""
        return self._client("operator")

    def _client(self, role: Role) -> ApiClient:
        caller = Caller(uuid4(), role)
        return ApiClient(caller.id, self._tokens.issue(caller), self.ports)


@dataclass
class Scene:
    """Clients, and the owner's wallets in every state. Tests here are refused, so nothing of it changes."""

    clients: dict[str, ApiClient]
    wallets: dict[str, str]

    @property
    def owner(self) -> ApiClient:
        """Whose wallets they are."""
        return self.clients["owner"]


async def set_scene(clients: ApiClients) -> Scene:
    """Return a new scene."""
    owner, stranger, operator = clients.user(), clients.user(), clients.operator()
    wallets = {
        "open": await owner.wallet(100),
        "other": await owner.wallet(),
        "dollars": await owner.wallet(100, currency="USD"),
        "full": await owner.wallet(2**63 - 1),
        "frozen": await owner.wallet(100),
        "closed": await owner.wallet(),
        "stranger's": await stranger.wallet(100),
        "unknown": str(uuid4()),
    }
    assert (await operator.post(f"/wallets/{wallets['frozen']}/freeze")).status == 200
    assert (await owner.post(f"/wallets/{wallets['closed']}/close")).status == 200
    return Scene({"owner": owner, "stranger": stranger, "operator": operator}, wallets)


async def settle(stack: Stack) -> None:
    """Wait until both workers know who owns each partition, and those decide."""
    operator = ApiClients(stack).operator()
    partitioner = Partitioner(int(stack.env["MERCURIA_PARTITIONS"]))
    # None of these wallets is there, as only the owner of its partition can say.
    ids = {partitioner.of(wallet_id).partition: wallet_id for wallet_id in (uuid4() for _ in range(200))}
    for wallet_id in ids.values():
        for worker in (0, 1):
            path = f"/wallets/{wallet_id}?consistency=strong"
            await until(partial(operator.get, path, worker=worker), lambda reply: reply.status == 404)


async def until(look: Callable[[], Awaitable[T]], is_so: Callable[[T], bool]) -> T:
    """Look again and again until what is seen is so, and return it."""
    async with asyncio.timeout(PATIENCE_S):
        while not is_so(seen := await look()):  # noqa: ASYNC110  what is looked at is elsewhere
            await asyncio.sleep(LOOK_EVERY_S)
        return seen


def refusal(reply: Reply) -> tuple[int, str]:
    """Return the status and the code of an answer that is a problem, which says the same in its headers and body."""
    assert reply.status >= 400, reply
    assert reply.document["status"] == reply.status
    assert reply.document["type"] == f"urn:mercuria:problem:{reply.code}"
    assert reply.document["instance"] == f"urn:mercuria:request:{reply.headers['X-Request-Id']}"
    return reply.status, reply.code
