"""The final state: wallets and transactions in PostgreSQL, Redis and the workers' answers, against the event log."""

import time
from collections.abc import Sequence
from functools import partial
from uuid import UUID

from mercuria.embedded.stack import Stack
from mercuria.kafka.client import event_reader
from mercuria.kafka.partitioning import Partitioner
from mercuria.postgres.database import Database
from mercuria.projections.checkpoints import Positions
from mercuria.projections.wallets.store import WalletTables
from mercuria.redis.authenticity import Authenticity
from mercuria.redis.cache import Cache
from mercuria.redis.client import connect
from tests.harness.audit.violations import Violations
from tests.harness.chaos.http.client import Client, open_client
from tests.harness.chaos.http.event_log import EventLog, State
from tests.harness.chaos.http.requests import Account, Request
from tests.harness.stacks import leg_key

CAUGHT_UP_WITHIN_S = 60.0


async def wait_until_caught_up(stack: Stack, violations: Violations) -> float:
    """Wait until PostgreSQL has all that the event log has; return when it had, by the monotonic clock."""
    database = Database(stack.env["MERCURIA_DATABASE"])
    try:
        async with event_reader(stack.env["MERCURIA_KAFKA"]) as reader:
            ends = await reader.end_offsets(reader.assignment())
        by_partition = {tp.partition: end for tp, end in ends.items()}
        if not await Positions(database, WalletTables.name).caught_up(by_partition, CAUGHT_UP_WITHIN_S):
            violations.add(f"PostgreSQL has not caught up after {CAUGHT_UP_WITHIN_S:.0f} s.")
        return time.monotonic()
    finally:
        await database.close()


class FinalState:
    """Compares what a stack holds, while nothing happens to it, with its event log."""

    def __init__(self, stack: Stack, log: EventLog, violations: Violations) -> None:
        self._stack = stack
        self._log = log
        self._latest = log.latest_states()
        self._violations = violations

    async def check(self, requests: Sequence[Request], accounts: Sequence[Account]) -> None:
        """Compare the wallets, and how the transactions of requests have ended."""
        database = Database(self._stack.env["MERCURIA_DATABASE"])
        try:
            await self._check_transactions(database, requests)
            await self._check_wallets(database)
        finally:
            await database.close()
        await self._check_cache()
        await self._check_answers(accounts)

    async def _check_transactions(self, database: Database, requests: Sequence[Request]) -> None:
        rows = await database.rows("SELECT reference, status FROM transactions")
        statuses = {row.reference: row.status for row in rows}
        for request in requests:
            expected = self._log.transaction_status(request)
            if request.kind != "open" and statuses.get(request.key) != expected:
                self._violations.add(
                    f"Request {request.key} is {statuses.get(request.key)} in PostgreSQL and {expected} in the log."
                )

    async def _check_wallets(self, database: Database) -> None:
        rows = await database.rows("SELECT id, version, balance, status FROM wallets")
        stored = {row.id: (row.version, State(row.balance, row.status)) for row in rows}
        for id_ in self._latest.keys() | stored.keys():
            if stored.get(id_) != self._latest.get(id_):
                self._violations.add(
                    f"Wallet {id_} is {stored.get(id_)} in PostgreSQL and {self._latest.get(id_)} in the log."
                )

    async def _check_cache(self) -> None:
        partitioner = Partitioner(int(self._stack.env["MERCURIA_PARTITIONS"]))
        redis = connect(self._stack.env["MERCURIA_REDIS"])
        cache = Cache(redis, Authenticity(partial(leg_key, self._stack)))
        for id_, (version, state) in self._latest.items():
            cached = await cache.wallet(partitioner.of(id_).partition, id_)
            if cached and (cached.wallet.version, cached.wallet.balance) != (version, state.balance):
                self._violations.add(
                    f"Wallet {id_} is {cached} in Redis, and {version}: {tuple(state)} in the log."
                )
        await redis.aclose()

    async def _check_answers(self, accounts: Sequence[Account]) -> None:
        async with open_client() as client:
            for account in accounts:
                for worker in self._stack.workers:
                    await self._check_answer(client, worker.port, account, self._latest[account.id])

    async def _check_answer(
        self, client: Client, port: int, account: Account, latest: tuple[int, State]
    ) -> None:
        path = f"/api/v1/wallets/{account.id}"
        answer = await client.request(port, "GET", path, token=account.owner.token)
        if answer.status != 200 or _wallet_state(answer.body) != latest:
            version, state = latest
            self._violations.add(
                f"In the end, wallet {account.id} is answered as {answer.body}, and is {version}: {tuple(state)}."
            )


def _wallet_state(body: dict[str, UUID | int | str]) -> tuple[object, State]:
    return body["version"], State(int(body["balance"]), str(body["status"]))
