"""Copies: the same request several times at the same moment over all workers, one of which is killed half-way.

    outcome = await Copies(stack, seed=1, keys=2500, copies=4).run()
    assert outcome.is_clean

Whoever gets no answer asks another worker, with the same key. In the end all copies have one answer, and one effect.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from random import Random
from uuid import UUID

from msgspec import Struct

from mercuria.auth.tokens import Caller, Tokens
from mercuria.config import Settings
from mercuria.embedded.stack import Stack
from tests.harness.audit.auditor import Audit
from tests.harness.audit.stack import audit_stack
from tests.harness.chaos.asking import Answer, Client, client, settled
from tests.harness.chaos.books import Books
from tests.harness.chaos.orders import Order, Orders, Person
from tests.harness.chaos.siege import told_by

PEOPLE = 6
ACCOUNTS = 40
KEYS_AT_ONCE = 50
ANSWERED_WITHIN_S = 120.0
OPENINGS = 0.05
"""The share of orders that open a wallet."""


class Outcome(Struct):
    """What came of it. `requests` are those that were to be answered, `answers` all that came."""

    seed: int
    keys: int
    requests: int
    answers: dict[str, int]
    replayed: int
    effects: int
    slowest_s: float
    took_s: float
    audit: Audit
    violations: list[str]
    violation_count: int

    @property
    def is_clean(self) -> bool:
        """Whether nothing is wrong."""
        return self.violation_count == 0


class Copies:
    """Requests that are each sent several times.

    Args:
        keys: how many different ones.
        copies: how often each is sent.
        tell: hears of what happens, a sentence at a time.
    """

    def __init__(
        self,
        stack: Stack,
        *,
        seed: int,
        keys: int = 2500,
        copies: int = 4,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._stack = stack
        self._seed = seed
        self._keys = keys
        self._copies = copies
        self._tell = tell
        self._random = Random(f"copies {seed}")
        self._books = Books()
        self._ports = [worker.port for worker in stack.workers]
        tokens = Tokens(Settings.from_env(stack.env | {"MERCURIA_ACCESS_TOKEN_MINUTES": "1440"}))
        ids = [UUID(int=self._random.getrandbits(128), version=4) for _ in range(PEOPLE)]
        self._people = [Person(id_, tokens.issue(Caller(id_, "user"))) for id_ in ids]
        self._orders = Orders(self._random, self._people, f"copies-{seed}")
        self._names: Counter[str] = Counter()
        self._slowest_s = 0.0
        self._done = 0
        self._client: Client

    async def run(self) -> Outcome:
        """Open wallets, send everything, kill a worker half-way, and check the answers against the log."""
        async with client() as self._client:
            partitions = int(self._stack.env["MERCURIA_PARTITIONS"])
            await settled(self._client, self._ports, partitions, self._people[0].token)
            await asyncio.gather(*(self._open() for _ in range(ACCOUNTS)))
            opened, began_s = len(self._orders.made), time.monotonic()
            killing = asyncio.create_task(self._kill_half_way())
            places = asyncio.Semaphore(KEYS_AT_ONCE)
            await asyncio.gather(*(self._order(places) for _ in range(self._keys)))
            await killing
            took_s = time.monotonic() - began_s
        return await self._close(self._orders.made[opened:], took_s)

    async def _close(self, orders: list[Order], took_s: float) -> Outcome:
        self._tell(f"{self._keys * self._copies} requests are answered; the books are checked.")
        told = await told_by(self._stack)
        self._books.close(orders, told)
        audit = await audit_stack(self._stack)
        finals = [answer for order in orders for answer in order.answers if answer.is_final]
        return Outcome(
            seed=self._seed,
            keys=len(orders),
            requests=len(finals),
            answers=dict(self._names),
            replayed=sum(each.is_replayed for each in finals),
            effects=sum(len(told.effects(order)) for order in orders),
            slowest_s=self._slowest_s,
            took_s=took_s,
            audit=audit,
            violations=self._books.violations.sentences + audit.violations,
            violation_count=self._books.violations.count + audit.violation_count,
        )

    async def _open(self) -> None:
        order = self._orders.opening()
        answer = await self._copy(order, 0)
        assert answer is not None and answer.status == 201, f"a wallet is not opened: {answer}"
        await self._copy(self._orders.filling(self._orders.opened(order, answer.body)), 0)

    async def _order(self, places: asyncio.Semaphore) -> None:
        """Send one order in all its copies at the same moment."""
        async with places:
            is_opening = self._random.random() < OPENINGS
            order = self._orders.opening() if is_opening else self._orders.movement()
            await asyncio.gather(*(self._copy(order, number) for number in range(self._copies)))
            self._done += 1

    async def _copy(self, order: Order, number: int) -> Answer | None:
        """Send an order to a worker, and again, to one after the other, until there is an answer that stays."""
        deadline_s = time.monotonic() + ANSWERED_WITHIN_S
        while time.monotonic() < deadline_s:
            answer = await self._client.ask(
                self._ports[number % len(self._ports)],
                "POST",
                order.path,
                token=order.person.token,
                body=order.body,
                key=order.key,
            )
            order.answers.append(answer)
            self._names[answer.name] += 1
            self._slowest_s = max(self._slowest_s, answer.ended_s - answer.began_s)
            if answer.is_final:
                return answer
            if answer.status not in (0, 202, 503):
                break
            await asyncio.sleep(0 if answer.status == 202 else answer.retry_after_s)
            number += 1
        self._books.violations.add(f"A copy of order {order.number} has no answer: {order.answers[-1]}.")
        return None

    async def _kill_half_way(self) -> None:
        while self._done < self._keys // 2:  # noqa: ASYNC110  nothing happens at once with it
            await asyncio.sleep(0.005)
        worker = self._random.choice(self._stack.workers)
        self._tell(f"{worker.title} is killed, after {self._done} of {self._keys} keys are answered.")
        await asyncio.to_thread(worker.kill)
