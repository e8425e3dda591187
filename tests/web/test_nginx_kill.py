"""A worker is killed behind nginx while people move money: who is told what, and what becomes of it.

The test prints its seed. Everybody has an address of their own, as nginx counts requests for each.
"""

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any
from uuid import uuid4

import aiohttp
import msgspec

from mercuria.embedded.stack import Stack
from mercuria.http.problems import CONTENT_TYPE
from tests.harness.audit.violations import Violations
from tests.harness.chaos.http.client import ANSWER_TIMEOUT_S, LOST, Answer
from tests.harness.chaos.http.event_log import read_event_log
from tests.harness.chaos.http.oracle import Oracle
from tests.harness.chaos.http.requests import Request
from tests.harness.chaos.http.users import User
from tests.web.api_client import API, ApiClient, ApiClients, settle, until
from tests.web.nginx import Nginx, nginx_before

PEOPLE = 6
WALLETS = 3
AT_ONCE = 4
"""How many requests each person has under way."""
FUNDS = 100_000
CALM_S = 2.0
NOTICED_WITHIN_S = 1.0
"""So soon after its end, nobody notices any more that a worker is gone."""
TURNS_TO_THE_OTHER_WITHIN_S = 2.0
BACK_WITHIN_S = 60.0


class Customer:
    """Somebody who asks nginx, from an address of their own, and keeps all answers."""

    def __init__(self, person: ApiClient, session: aiohttp.ClientSession, url: str) -> None:
        self.person = person
        self.wallets: list[str] = []
        self.readings: list[tuple[str, Answer]] = []
        self.requests: list[Request] = []
        self.asked: list[tuple[str, Answer]] = []
        """The ids of requests that were to change something, with what was answered."""
        self._session = session
        self._url = url

    async def ask(
        self, method: str, path: str, body: Any = None, key: str | None = None
    ) -> tuple[str, Answer]:
        """Ask once, and return the request's id with what came of it."""
        id_ = uuid4().hex
        headers = {"Authorization": f"Bearer {self.person.token}", "X-Request-Id": id_}
        if key is not None:
            headers |= {"Idempotency-Key": key, "Content-Type": "application/json"}
        data = None if body is None else msgspec.json.encode(body)
        began_s = time.monotonic()
        try:
            async with self._session.request(method, self._url + path, headers=headers, data=data) as answer:
                content = msgspec.json.decode(await answer.read())
                told = {name.title(): value for name, value in answer.headers.items()}
                return id_, Answer(answer.status, content, told, began_s, time.monotonic(), 0)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            return id_, Answer(LOST, {"error": repr(error)}, {}, began_s, time.monotonic(), 0)

    async def move(self, random: Random, all_wallets: list[str]) -> None:
        """Move money to anybody, and ask with the same key until it is known what has become of it."""
        source = random.choice(self.wallets)
        target = random.choice([wallet for wallet in all_wallets if wallet != source])
        key = f"nginx-{uuid4()}"
        amount = random.randint(1, 50)
        body = {"from_wallet_id": source, "to_wallet_id": target, "amount": amount, "reference": key}
        user = User(self.person.id, self.person.token)
        request = Request(len(self.requests), "transfer", user, key, f"{API}/transactions", body)
        self.requests.append(request)
        while request.final is None:
            id_, answer = await self.ask("POST", request.path, body, key)
            self.asked.append((id_, answer))
            request.answers.append(answer)
            if not answer.is_final:
                await asyncio.sleep(answer.retry_after_s)

    async def read(self, random: Random) -> None:
        """Look at a wallet."""
        self.readings.append(await self.ask("GET", f"{API}/wallets/{random.choice(self.wallets)}"))


async def test_a_killed_worker_costs_what_was_under_way_on_it_and_nothing_else(
    settled: Stack, clients: ApiClients, tmp_path: Path
) -> None:
    seed = secrets.randbelow(2**32)
    print(f"seed {seed}")
    random = Random(seed)
    victim, other = random.sample(settled.workers, 2)
    ports = [worker.port for worker in settled.workers]
    with nginx_before(ports, tmp_path / "nginx") as nginx:
        async with customers(nginx, clients) as everybody:
            all_wallets = [wallet for each in everybody for wallet in each.wallets]
            enough = asyncio.Event()

            async def go_on(customer: Customer) -> None:
                while not enough.is_set():
                    await customer.move(random, all_wallets)
                    await customer.read(random)

            async with asyncio.TaskGroup() as tasks:
                for each in everybody:
                    for _ in range(AT_ONCE):
                        tasks.create_task(go_on(each))
                await asyncio.sleep(CALM_S)
                killed_s, killed_at = time.monotonic(), len(nginx.log())
                await asyncio.to_thread(victim.kill)
                gone_s, gone_at = time.monotonic(), len(nginx.log())
                await asyncio.gather(*(each.read(random) for each in everybody))
                turned_s = time.monotonic()
                # Its supervisor starts it again.
                async with asyncio.timeout(BACK_WITHIN_S):
                    while not await asyncio.to_thread(victim.is_ready):  # noqa: ASYNC110
                        await asyncio.sleep(0.1)
                ready_s, ready_at = time.monotonic(), len(nginx.log())
                await until(lambda: done_by(victim.port, nginx, ready_at), lambda done: done > 0)
                enough.set()
            print(f"{victim.title} was ready again after {ready_s - killed_s:.1f} s.")
            assert turned_s - gone_s < TURNS_TO_THE_OTHER_WITHIN_S
            assert done_by_now(other.port, nginx.log()[gone_at:ready_at]) > 0
            workers = {each["request_id"]: each["worker"] for each in nginx.log()}
            asked = [each for customer in everybody for each in customer.asked]
            print("changes:", dict(Counter(answer.name for _, answer in asked)))
            readings = [each for customer in everybody for each in customer.readings]
            print("readings:", dict(Counter(answer.name for _, answer in readings)))
            assert done_by_now(victim.port, nginx.log()[:killed_at]) > 0

            # Nobody was left without an answer, and who was told to ask again was under way on the killed worker.
            broken = [(id_, answer) for id_, answer in asked if answer.status in (LOST, 502, 504)]
            assert broken, "the worker had nothing to do when it was killed"
            for id_, answer in broken:
                assert (answer.status, answer.code) == (502, "bad_gateway"), answer
                assert answer.headers["Content-Type"] == CONTENT_TYPE
                assert answer.headers["Retry-After"] == "1"
                assert answer.headers["X-Request-Id"] == id_
                assert workers[id_] == f"127.0.0.1:{victim.port}"
                assert answer.began_s < gone_s + NOTICED_WITHIN_S and answer.ended_s > killed_s
            assert len(broken) <= PEOPLE * AT_ONCE
            # What only reads, nginx asks the other worker.
            assert {answer.status for _, answer in readings} <= {200, 503}

            # One answer and one effect for each key, and no money more or less.
            await settle(settled)
            log, violations = await read_event_log(settled), Violations()
            requests = [request for customer in everybody for request in customer.requests]
            Oracle(violations).check(requests, log)
            assert violations.sentences == []
            assert all(len(log.effects(request)) == 1 for request in requests)
            expected = Counter(dict.fromkeys(all_wallets, FUNDS))
            for request in requests:
                assert request.final is not None and request.final.status == 201
                expected[request.body["from_wallet_id"]] -= request.body["amount"]
                expected[request.body["to_wallet_id"]] += request.body["amount"]
            for customer in everybody:
                for wallet in customer.wallets:
                    assert await customer.person.balance(wallet) == expected[wallet]
            repeated = [
                await replay(each, request) for each in everybody for request in broken_requests(each)
            ]
            assert repeated and all(repeated)


def broken_requests(customer: Customer) -> list[Request]:
    """Return the requests that a worker broke off."""
    return [request for request in customer.requests if any(each.status == 502 for each in request.answers)]


async def replay(customer: Customer, request: Request) -> bool:
    """Send a request once more; return whether it gets the same answer, marked as replayed."""
    _, answer = await customer.ask("POST", request.path, request.body, request.key)
    assert request.final is not None
    return answer.is_replayed and answer.content == request.final.content


async def done_by(port: int, nginx: Nginx, since: int) -> int:
    """Return how many transfers a worker has carried out since a line of the log."""
    return done_by_now(port, nginx.log()[since:])


def done_by_now(port: int, log: list[dict[str, Any]]) -> int:
    """Return how many transfers a worker has carried out by itself."""
    return sum(each["status"] == 201 and each["worker"] == f"127.0.0.1:{port}" for each in log)


@asynccontextmanager
async def customers(nginx: Nginx, clients: ApiClients) -> AsyncIterator[list[Customer]]:
    """Return people with wallets that are filled."""
    async with AsyncExitStack() as sessions:
        everybody = []
        for number in range(PEOPLE):
            connector = aiohttp.TCPConnector(limit=0, local_addr=(f"127.0.1.{number + 1}", 0))
            timeout = aiohttp.ClientTimeout(total=ANSWER_TIMEOUT_S)
            session = await sessions.enter_async_context(
                aiohttp.ClientSession(connector=connector, timeout=timeout)
            )
            customer = Customer(clients.user(), session, f"http://127.0.0.1:{nginx.port}")
            customer.wallets = [await customer.person.wallet(FUNDS) for _ in range(WALLETS)]
            everybody.append(customer)
        yield everybody
