"""The reads of a run: wallets, transactions and lists, and what each answer must and must not be."""

from random import Random

from tests.harness.audit.violations import Violations
from tests.harness.chaos.http.client import Answer
from tests.harness.chaos.http.oracle import Oracle
from tests.harness.chaos.http.recorder import RecordingClient
from tests.harness.chaos.http.requests import Account, RequestGenerator
from tests.harness.chaos.http.users import User


class Reader:
    """Reads as users do, from a worker chosen at random."""

    def __init__(
        self,
        client: RecordingClient,
        generator: RequestGenerator,
        random: Random,
        oracle: Oracle,
        violations: Violations,
    ) -> None:
        self._client = client
        self._generator = generator
        self._random = random
        self._oracle = oracle
        self._violations = violations

    async def read(self) -> None:
        """Read something, mostly a wallet."""
        account, chance = self._random.choice(self._generator.accounts), self._random.random()
        if chance < 0.5:
            await self.wallet(account, is_strong=False)
        elif chance < 0.75:
            await self.wallet(account, is_strong=True)
        elif chance < 0.85:
            await self.wallets(account.owner)
        else:
            await self.transactions(account)

    async def wallet(self, account: Account, *, is_strong: bool) -> None:
        """Read a wallet, which exists."""
        kind = "wallet, strongly" if is_strong else "wallet"
        path = f"/api/v1/wallets/{account.id}" + ("?consistency=strong" if is_strong else "")
        answer = await self._get(kind, path, account.owner)
        if answer.status == 200:
            age_s = self._oracle.observe_read(
                answer.body, answer.began_s, answer.ended_s, is_strong=is_strong
            )
            self._client.recorder.record_age(age_s)
        elif answer.status == 404:
            self._violations.add(f"Wallet {account.id} was answered, and then there is no such wallet.")

    async def wallets(self, user: User) -> None:
        """List the wallets of a user."""
        answer = await self._get("list", "/api/v1/wallets?limit=100", user)
        if answer.status == 200:
            for wallet in answer.body["data"]:
                self._oracle.observe_wallet(wallet, "a list", answer.ended_s)

    async def transactions(self, account: Account) -> None:
        """List the latest transactions of a wallet."""
        path = f"/api/v1/transactions?limit=20&wallet_id={account.id}"
        answer = await self._get("list", path, account.owner)
        for body in answer.body["data"] if answer.status == 200 else ():
            request = self._generator.requests[int(body["reference"].rpartition("-")[2])]
            if body["amount"] != request.body["amount"]:
                self._violations.add(f"Request {request.number} is listed as {body}.")

    async def transaction(self, user: User, id_: str) -> Answer:
        """Read a transaction, which exists."""
        found = await self._get("transaction", f"/api/v1/transactions/{id_}", user)
        if found.status == 404:
            self._violations.add(f"Transaction {id_} was answered, and then there is no such transaction.")
        return found

    async def _get(self, kind: str, path: str, user: User) -> Answer:
        return await self._client.request(kind, self._client.any_port(), "GET", path, user=user)
