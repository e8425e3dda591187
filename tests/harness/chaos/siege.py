"""A siege: people use a stack over HTTP while its parts are stopped and killed, and then the books are checked.

    outcome = await Siege(stack, seed=1).run(stop(stack.redis, 60))
    assert outcome.is_clean

Everybody keeps books of what they were answered (`books`), which are compared with the event log at the end; the log
itself is audited, and PostgreSQL's wallets and those in Redis are compared with the tables'.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from random import Random
from typing import Any, Literal
from uuid import UUID, uuid4

from msgspec import Struct

from mercuria.auth.tokens import Caller, Role, Tokens
from mercuria.config import Settings
from mercuria.embedded.stack import Stack
from mercuria.kafka.client import event_reader, read_log
from mercuria.kafka.cloudevents import read_event
from mercuria.kafka.partitioning import Homes
from mercuria.postgres.database import Database
from mercuria.projections.checkpoints import Positions
from mercuria.projections.wallets.store import STAGE
from mercuria.redis.authenticity import Authenticity
from mercuria.redis.cache import Cache
from mercuria.redis.client import connect
from mercuria.topics import WALLET_EVENTS
from tests.harness.audit.auditor import Audit
from tests.harness.audit.stack import audit_stack
from tests.harness.audit.violations import Violations
from tests.harness.chaos.asking import Answer, Client, client, settled
from tests.harness.chaos.books import Books, State, Told
from tests.harness.chaos.orders import Account, Order, Orders, Person
from tests.harness.errors import StalledError
from tests.harness.stacks import leg_key

PEOPLE = 6
ACCOUNTS = 24
MAX_ORDERS_UNDER_WAY = 250
MAX_READINGS_UNDER_WAY = 150
SETTLED_WITHIN_S = 60.0
CAUGHT_UP_WITHIN_S = 60.0
READY_EVERY_S = 0.5
LOGIN_EVERY_S = 1.0
FOLLOW_EVERY_S = 0.25
TRIES_OF_THE_IMPATIENT = 2
PATIENCE_S = 6.0
"""How long people wait for a worker that may be broken: a little longer than it waits for a wallet."""
SERVERS_RECOVER_WITHIN_S = 8.0
"""So soon after a server is there again, everything has to be answered again."""
WORKERS_RECOVER_WITHIN_S = 60.0
"""A worker that is there again takes partitions, and reads their tables first. Often both workers end and start again:
the frozen one, and the one that finds its late rows. Then this takes 33 to 38 s on a quiet machine with two cores."""

Phase = Literal["before", "during", "after"]
PHASES: tuple[Phase, ...] = ("before", "during", "after")


class Asked(Struct):
    """What was answered to requests of one sort in one phase: how often what, and how long the slowest took."""

    answers: dict[str, int] = {}
    slowest_s: float = 0.0

    def count(self, *names: str) -> int:
        """Return how many answers had one of these names."""
        return sum(self.answers.get(name, 0) for name in names)

    @property
    def all(self) -> int:
        """How many answers there were."""
        return sum(self.answers.values())


class Outcome(Struct):
    """What came of a siege. Times are seconds."""

    seed: int
    orders: int
    asked: dict[str, dict[str, Asked]]
    """By phase and by what was asked."""
    outage_s: float
    recovered_after_s: float
    """How long after the outage the last request could not be answered."""
    caught_up_after_s: float
    """How long after the outage, or later, PostgreSQL had everything."""
    oldest_shown_s: dict[str, float]
    """By phase, how old the oldest balance was that was shown without asking for the newest."""
    unready: list[str]
    """What workers said why they were not ready, during the outage."""
    audit: Audit
    violations: list[str]
    violation_count: int

    @property
    def is_clean(self) -> bool:
        """Whether nothing is wrong."""
        return self.violation_count == 0

    def of(self, phase: Phase, what: str) -> Asked:
        """Return what was answered in a phase."""
        return self.asked.get(phase, {}).get(what, Asked())


class Siege:
    """People who use a stack of two workers or more.

    Args:
        rate_per_s: how many requests are sent a second, while not too many are unanswered.
        calm_s: how long there is load before something happens, and after all answers are as they should be again.
        tell: hears of what happens, a sentence at a time.
        violations: where what is wrong is noted.
        is_tolerant: whether people take it that requests are refused (503) or lost at any time, and ask again, as on a
            machine that is too busy; that is counted in `refused`, and no violation.
    """

    def __init__(
        self,
        stack: Stack,
        *,
        seed: int,
        rate_per_s: float = 200,
        calm_s: float = 5.0,
        tell: Callable[[str], None] = lambda _: None,
        violations: Violations | None = None,
        is_tolerant: bool = False,
    ) -> None:
        self.stack = stack
        self.seed = seed
        self.random = Random(f"siege {seed}")
        self.tell = tell
        self.books = Books(violations)
        self._is_tolerant = self._loses_answers = is_tolerant
        self._recovers_within_s = SERVERS_RECOVER_WITHIN_S
        self.phase: Phase = "before"
        self.ports = [worker.port for worker in stack.workers]
        self.unready: dict[int, list[str]] = {}
        """What each worker, by its port, says why it is not ready."""
        self._rate_per_s = rate_per_s
        self._calm_s = calm_s
        self._tokens = Tokens(Settings.from_env(stack.env | {"MERCURIA_ACCESS_TOKEN_MINUTES": "1440"}))
        people = [self._person(UUID(int=self.random.getrandbits(128), version=4)) for _ in range(PEOPLE)]
        self._operator = self._person(uuid4(), "operator")
        self.orders = Orders(self.random, people, f"siege-{seed}")
        self._people = people
        self._asked: defaultdict[str, defaultdict[str, Asked]] = defaultdict(lambda: defaultdict(Asked))
        self.asked = 0
        self.refused = 0
        """How many requests have been answered, or lost; and how many of them were refused or lost."""
        self._ages_s: defaultdict[str, float] = defaultdict(float)
        self._said_unready: set[str] = set()
        self._began_s = self._ended_s = 0.0
        self._refused_s = 0.0
        self._is_over = False
        self._under_way: dict[str, set[asyncio.Task[None]]] = defaultdict(set)
        self._client: Client

    # From the beginning to the end.

    async def run(self, faults: "Faults") -> Outcome:
        """Open wallets, use them while the faults happen, wait until all is answered, and check everything."""
        await self.use(faults)
        return await self.close()

    async def use(self, faults: "Faults") -> None:
        """Open wallets, use them while the faults happen, and wait until all is answered."""
        async with client() as self._client:
            if self._is_tolerant:
                self._client.patience_s = PATIENCE_S
            partitions = int(self.stack.env["MERCURIA_PARTITIONS"])
            await settled(self._client, self.ports, partitions, self._people[0].token)
            await asyncio.gather(*(self._open() for _ in range(ACCOUNTS)))
            self.tell(f"{ACCOUNTS} wallets are open.")
            async with asyncio.TaskGroup() as group:
                steady = [group.create_task(each) for each in (self._use(), self._watch(), self._log_in())]
                await asyncio.sleep(self._calm_s)
                await faults(self)
                await self.calm(self._calm_s)
                self._is_over = True
                await asyncio.wait(steady)
            await self._settle()

    @asynccontextmanager
    async def outage(self, sentence: str) -> AsyncIterator[None]:
        """Say that from now on, until the end of the block, something is broken."""
        self.tell(sentence)
        self.phase, self._began_s = "during", self._began_s or time.monotonic()
        try:
            yield
        finally:
            self.phase, self._ended_s = "after", time.monotonic()

    def lose_answers(self) -> None:
        """Let people take it that workers are broken: they ask another one when an answer does not come soon."""
        self._loses_answers = True
        self._client.patience_s = PATIENCE_S
        self._recovers_within_s = WORKERS_RECOVER_WITHIN_S

    async def calm(self, for_s: float) -> None:
        """Wait until for a while all was answered as it should be."""
        deadline_s = self._ended_s + self._recovers_within_s + for_s
        while time.monotonic() < max(self._ended_s, self._refused_s) + for_s:
            if time.monotonic() > deadline_s:
                if not self._is_tolerant:
                    self.violation(
                        f"{self._recovers_within_s:.0f} s after the outage, requests were still refused."
                    )
                return
            await asyncio.sleep(0.1)

    async def _settle(self) -> None:
        """Wait for the orders and readings that are under way."""
        under_way = [task for tasks in self._under_way.values() for task in tasks]
        _, late = await asyncio.wait(under_way, timeout=SETTLED_WITHIN_S) if under_way else ((), ())
        for task in late:
            task.cancel()
        if late:
            open_ = [order.key for order in self.orders.made if order.accepted and not order.final]
            self.violation(
                f"{len(late)} orders and readings have no end after {SETTLED_WITHIN_S:.0f} s;"
                f" of those that were accepted: {open_}."
            )

    async def close(self) -> Outcome:
        """Check everything that was answered, when no more happens to the stack."""
        self.tell(f"{len(self.orders.made)} orders are answered; the books are checked.")
        caught_up_s = await self._caught_up()
        told = await told_by(self.stack)
        self.books.close(self.orders.made, told)
        await self._compare(told)
        audit = await audit_stack(self.stack)
        return Outcome(
            seed=self.seed,
            orders=len(self.orders.made),
            asked={phase: dict(self._asked[phase]) for phase in PHASES},
            outage_s=self._ended_s - self._began_s,
            recovered_after_s=max(0.0, self._refused_s - self._ended_s),
            caught_up_after_s=caught_up_s - self._ended_s,
            oldest_shown_s=dict(self._ages_s),
            unready=sorted(self._said_unready),
            audit=audit,
            violations=self.books.violations.sentences + audit.violations,
            violation_count=self.books.violations.count + audit.violation_count,
        )

    # What goes on.

    async def _use(self) -> None:
        """Order and read at a steady rate."""
        next_s = time.monotonic()
        while not self._is_over:
            if self.random.random() < 0.55:
                self._begin("orders", MAX_ORDERS_UNDER_WAY, self._order)
            else:
                self._begin("readings", MAX_READINGS_UNDER_WAY, self._read)
            next_s = max(next_s + 1 / self._rate_per_s, time.monotonic() - 0.1)
            await asyncio.sleep(next_s - time.monotonic())

    def _begin(self, sort: str, most: int, do: Callable[[], Coroutine[Any, Any, None]]) -> None:
        tasks = self._under_way[sort]
        if len(tasks) < most:
            task = asyncio.create_task(do())
            tasks.add(task)
            task.add_done_callback(self._finish)

    def _finish(self, task: asyncio.Task[None]) -> None:
        for tasks in self._under_way.values():
            tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.violation(f"A client has a bug: {error!r}.")

    async def _watch(self) -> None:
        """Ask each worker again and again whether it is ready."""
        while not self._is_over:
            await asyncio.gather(*map(self._look_at, self.ports))
            await asyncio.sleep(READY_EVERY_S)

    async def _look_at(self, port: int) -> None:
        answer = await self._ask("ready", port, "GET", "/health/ready")
        if answer.status in (200, 503):
            self.unready[port] = answer.body["reasons"]
            if self.phase == "during":
                self._said_unready.update(answer.body["reasons"])

    async def _log_in(self) -> None:
        """Try to log in, with an address that nobody has."""
        while not self._is_over:
            body = {"email": f"{uuid4().hex}@example.com", "password": "correct horse battery staple"}
            await self._ask("login", self._port(), "POST", "/api/v1/login", body=body)
            await asyncio.sleep(LOGIN_EVERY_S)

    # Orders.

    async def _open(self) -> None:
        order = self.orders.opening()
        while order.final is None:
            await self._carry_out(order)
        final = order.final
        if final.status != 201:
            raise StalledError(f"A wallet is not opened: {[answer.body for answer in order.answers]}.")
        account = self.orders.opened(order, final.body)
        await self._carry_out(self.orders.filling(account))

    async def _order(self) -> None:
        if self.random.random() < 0.02:
            order = self.orders.opening()
            await self._carry_out(order)
            if order.final is not None and order.final.status == 201:
                self.orders.opened(order, order.final.body)
        else:
            order = self.orders.movement()
            await self._carry_out(order)
        if order.final is not None and self.random.random() < 0.1:
            # Whoever asks once more gets the same once more.
            await self._send(order, self._port())

    async def _carry_out(self, order: Order) -> None:
        """Send an order, and again as long as nobody knows what came of it; a few people give up."""
        is_impatient = self.random.random() < 0.2
        prefer = "respond-async" if self.random.random() < 0.05 else None
        port = self._port()
        while True:
            answer = await self._send(order, port, prefer)
            if answer.is_final:
                await self._look_up(order, answer)
                return
            if answer.status == 202:
                await self._follow(order, answer)
                if is_impatient:
                    return
                prefer = None
            elif is_impatient and len(order.answers) >= TRIES_OF_THE_IMPATIENT:
                return
            await asyncio.sleep(answer.retry_after_s * self.random.uniform(1, 1.5))
            port = self._other_port(port)

    async def _send(self, order: Order, port: int, prefer: str | None = None) -> Answer:
        answer = await self._ask(
            "order",
            port,
            "POST",
            order.path,
            person=order.person,
            body=order.body,
            key=order.key,
            prefer=prefer,
        )
        order.answers.append(answer)
        if answer.status == 201 and (wallet := _wallet_in(order, answer)):
            self.books.take_wallet(wallet, f"order {order.number}", answer.ended_s)
        if answer.code == "command_id_reused":
            self.violation(f"Order {order.number} is told that its key was used for another one.")
        if answer.status == 503 and "Retry-After" not in answer.headers:
            self.violation(f"Order {order.number} is not told when to ask again: {answer.body}.")
        return answer

    async def _look_up(self, order: Order, answer: Answer) -> None:
        """Look up what was just done, now and then: who has an answer finds it everywhere."""
        if answer.status != 201 or self.random.random() > 0.3:
            return
        if order.kind == "open":
            account = Account(UUID(answer.body["id"]), order.person, answer.body["currency"])
            await self._read_wallet(account, is_strong=self.random.random() < 0.3)
        else:
            found = await self._transaction(order.person, answer.body["id"])
            if found.status == 200 and found.body["status"] != "completed":
                self.violation(f"Order {order.number} was done, and then it was {found.body['status']}.")

    async def _follow(self, order: Order, answer: Answer) -> None:
        """Follow what was accepted to its end."""
        if order.kind == "open":
            await self._follow_opening(order, answer)
            return
        while not self._is_hopeless:
            found = await self._transaction(order.person, answer.body["id"])
            if found.status == 200 and found.body["status"] != "pending":
                return
            await asyncio.sleep(FOLLOW_EVERY_S)

    async def _follow_opening(self, order: Order, answer: Answer) -> None:
        path = answer.headers["Location"]
        while not self._is_hopeless:
            found = await self._ask("opening", self._port(), "GET", path, person=order.person)
            if found.status == 404:
                self.violation(f"Order {order.number} was accepted, and there is no such wallet.")
            if found.status == 200:
                return
            await asyncio.sleep(FOLLOW_EVERY_S)

    @property
    def _is_hopeless(self) -> bool:
        return (
            self._is_over and time.monotonic() > self._ended_s + WORKERS_RECOVER_WITHIN_S + SETTLED_WITHIN_S
        )

    async def _transaction(self, person: Person, id_: str) -> Answer:
        path = f"/api/v1/transactions/{id_}"
        found = await self._ask("transaction", self._port(), "GET", path, person=person)
        if found.status == 404:
            self.violation(f"Transaction {id_} was answered, and then there is no such transaction.")
        return found

    # Readings.

    async def _read(self) -> None:
        account, chance = self.random.choice(self.orders.accounts), self.random.random()
        if chance < 0.5:
            await self._read_wallet(account, is_strong=False)
        elif chance < 0.75:
            await self._read_wallet(account, is_strong=True)
        elif chance < 0.85:
            await self._read_wallets(account.owner)
        else:
            await self._read_transactions(account)

    async def _read_wallet(self, account: Account, *, is_strong: bool, port: int | None = None) -> None:
        what = "wallet, strongly" if is_strong else "wallet"
        path = f"/api/v1/wallets/{account.id}" + ("?consistency=strong" if is_strong else "")
        answer = await self._ask(what, port or self._port(), "GET", path, person=account.owner)
        if answer.status == 200:
            age_s = self.books.take_reading(answer.body, answer.began_s, answer.ended_s, is_strong=is_strong)
            self._ages_s[self.phase] = max(self._ages_s[self.phase], age_s)
        elif answer.status == 404:
            self.violation(f"Wallet {account.id} was answered, and then there is no such wallet.")

    async def _read_wallets(self, person: Person) -> None:
        answer = await self._ask("list", self._port(), "GET", "/api/v1/wallets?limit=100", person=person)
        if answer.status == 200:
            for wallet in answer.body["data"]:
                self.books.take_wallet(wallet, "a list", answer.ended_s)

    async def _read_transactions(self, account: Account) -> None:
        path = f"/api/v1/transactions?limit=20&wallet_id={account.id}"
        answer = await self._ask("list", self._port(), "GET", path, person=account.owner)
        for body in answer.body["data"] if answer.status == 200 else ():
            order = self.orders.made[int(body["reference"].rpartition("-")[2])]
            if body["amount"] != order.body["amount"]:
                self.violation(f"Order {order.number} is listed as {body}.")

    # Asking.

    async def _ask(
        self, what: str, port: int, method: str, path: str, *, person: Person | None = None, **more: Any
    ) -> Answer:
        phase = self.phase
        token = person.token if person else None
        answer = await self._client.ask(port, method, path, token=token, **more)
        asked = self._asked[phase][what]
        asked.answers[answer.name] = asked.answers.get(answer.name, 0) + 1
        asked.slowest_s = max(asked.slowest_s, answer.ended_s - answer.began_s)
        self._judge(what, answer)
        self.asked += 1
        return answer

    def _judge(self, what: str, answer: Answer) -> None:
        is_refused = answer.status in (0, 503)
        if answer.status >= 500 and not is_refused:
            self.violation(f"A request for {what} was answered with {answer.name}: {answer.body}.")
        if answer.status == 0 and not self._loses_answers:
            self.violation(f"A request for {what} was not answered: {answer.body}.")
        if is_refused and self.phase == "before" and not self._is_tolerant:
            self.violation(f"A request for {what} was answered with {answer.name} before the outage.")
        if is_refused:
            self._refused_s = max(self._refused_s, answer.ended_s)
            self.refused += what != "ready"

    def violation(self, sentence: str) -> None:
        """Note that something is wrong."""
        self.books.violations.add(sentence)

    def _port(self) -> int:
        return self.random.choice(self.ports)

    def _other_port(self, port: int) -> int:
        return self.random.choice([each for each in self.ports if each != port] or self.ports)

    def _person(self, id_: UUID, role: Role = "user") -> Person:
        return Person(id_, self._tokens.issue(Caller(id_, role)))

    async def lag(self) -> dict[str, int]:
        """Return by how many records each stage is behind, as an operator is told; nothing where nobody can say."""
        for port in self.ports:
            answer = await self._client.ask(port, "GET", "/api/v1/operations/lag", token=self._operator.token)
            if answer.status == 200:
                return {stage["stage"]: stage["lag"] for stage in answer.body["stages"]}
        return {}

    # The end.

    async def _caught_up(self) -> float:
        """Wait until PostgreSQL has all that the log has; return when it had."""
        database = Database(self.stack.env["MERCURIA_DATABASE"])
        try:
            async with event_reader(self.stack.env["MERCURIA_KAFKA"]) as reader:
                ends = await reader.end_offsets(reader.assignment())
            by_partition = {tp.partition: end for tp, end in ends.items()}
            if not await Positions(database, STAGE).caught_up(by_partition, CAUGHT_UP_WITHIN_S):
                self.violation(f"PostgreSQL has not caught up after {CAUGHT_UP_WITHIN_S:.0f} s.")
            return time.monotonic()
        finally:
            await database.close()

    async def _compare(self, told: Told) -> None:
        """Compare the wallets in PostgreSQL, in Redis and those that the workers answer with the log's."""
        last = {id_: (max(states), states[max(states)]) for id_, states in told.states.items()}
        database = Database(self.stack.env["MERCURIA_DATABASE"])
        rows = await database.rows("SELECT id, version, balance, status FROM wallets")
        transactions = await database.rows("SELECT reference, status FROM transactions")
        await database.close()
        self._compare_transactions({row.reference: row.status for row in transactions}, told)
        in_postgres = {row.id: (row.version, State(row.balance, row.status)) for row in rows}
        for id_ in last.keys() | in_postgres.keys():
            if in_postgres.get(id_) != last.get(id_):
                self.violation(
                    f"Wallet {id_} is {in_postgres.get(id_)} in PostgreSQL and {last.get(id_)} in the log."
                )
        await self._compare_cache(last)
        async with client() as self._client:
            for account in self.orders.accounts:
                for port in self.ports:
                    await self._compare_answer(account, port, last[account.id])

    def _compare_transactions(self, statuses: dict[str | None, str], told: Told) -> None:
        """Compare how transactions ended, as PostgreSQL has it, with the log."""
        for order in self.orders.made:
            expected = told.ending(order)
            if order.kind != "open" and statuses.get(order.key) != expected:
                self.violation(
                    f"Order {order.key} is {statuses.get(order.key)} in PostgreSQL and {expected} in the log."
                )

    async def _compare_cache(self, last: dict[UUID, tuple[int, State]]) -> None:
        homes = Homes(int(self.stack.env["MERCURIA_PARTITIONS"]))
        redis = connect(self.stack.env["MERCURIA_REDIS"])
        cache = Cache(redis, Authenticity(partial(leg_key, self.stack)))
        for id_, (version, state) in last.items():
            cached = await cache.wallet(homes.of(id_).partition, id_)
            if cached and (cached.wallet.version, cached.wallet.balance) != (version, state.balance):
                self.violation(
                    f"Wallet {id_} is {cached} in Redis, and {version}: {tuple(state)} in the log."
                )
        await redis.aclose()

    async def _compare_answer(self, account: Account, port: int, last: tuple[int, State]) -> None:
        answer = await self._client.ask(
            port, "GET", f"/api/v1/wallets/{account.id}", token=account.owner.token
        )
        version, state = last
        if (
            answer.status != 200
            or (answer.body["version"], State(answer.body["balance"], answer.body["status"])) != last
        ):
            self.violation(
                f"In the end, wallet {account.id} is answered as {answer.body}, and is {version}: {tuple(state)}."
            )


Faults = Callable[[Siege], Awaitable[None]]
"""What happens to the stack while people use it."""


async def told_by(stack: Stack) -> Told:
    """Return what the event log of a stack says."""
    told = Told()
    async for record in read_log(stack.env["MERCURIA_KAFKA"], WALLET_EVENTS):
        told.take(record.partition, read_event(record.value))
    return told


def _wallet_in(order: Order, answer: Answer) -> dict[str, Any] | None:
    """Return the wallet that an answer to an order shows, if it shows one."""
    wallet = answer.body if order.kind == "open" else answer.body.get("wallet")
    return wallet if isinstance(wallet, dict) else None
