"""The writes of a run: requests with an idempotency key, their retries, and the transactions that they start."""

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any
from uuid import UUID

from tests.harness.audit.violations import Violations
from tests.harness.chaos.http.client import Answer
from tests.harness.chaos.http.oracle import Oracle
from tests.harness.chaos.http.reads import Reader
from tests.harness.chaos.http.recorder import RecordingClient
from tests.harness.chaos.http.requests import Account, Request, RequestGenerator
from tests.harness.errors import StalledError

POLL_S = 0.25
MAX_IMPATIENT_ATTEMPTS = 2


class Writer:
    """Sends requests that change something, until their outcome is known.

    Args:
        gives_up: whether what was accepted is not polled any more.
    """

    def __init__(
        self,
        client: RecordingClient,
        generator: RequestGenerator,
        random: Random,
        oracle: Oracle,
        violations: Violations,
        reader: Reader,
        gives_up: Callable[[], bool],
    ) -> None:
        self._client = client
        self._generator = generator
        self._random = random
        self._oracle = oracle
        self._violations = violations
        self._reader = reader
        self._gives_up = gives_up

    async def open_and_fund(self) -> None:
        """Open a wallet, and make its first deposit.

        Raises:
            StalledError: the wallet is not opened.
        """
        request = self._generator.opening()
        while request.final is None:
            await self._carry_out(request)
        final = request.final
        if final.status != 201:
            raise StalledError(f"A wallet is not opened: {[answer.body for answer in request.answers]}.")
        await self._carry_out(self._generator.funding(self._generator.opened(request, final.body)))

    async def write(self) -> None:
        """Move money, or now and then open a wallet."""
        if self._random.random() < 0.02:
            request = self._generator.opening()
            await self._carry_out(request)
            if request.final is not None and request.final.status == 201:
                self._generator.opened(request, request.final.body)
        else:
            request = self._generator.movement()
            await self._carry_out(request)
        if request.final is not None and self._random.random() < 0.1:
            # A retry of a decided request has to get the same answer.
            await self._send(request, self._client.any_port())

    async def _carry_out(self, request: Request) -> None:
        """Send a request, and again as long as its outcome is unknown; a few clients give up earlier."""
        is_impatient = self._random.random() < 0.2
        prefer = "respond-async" if self._random.random() < 0.05 else None
        port = self._client.any_port()
        while True:
            answer = await self._send(request, port, prefer)
            if answer.is_final:
                await self._read_back(request, answer)
                return
            if answer.status == 202:
                await self._follow(request, answer)
                if is_impatient:
                    return
                prefer = None
            elif is_impatient and len(request.answers) >= MAX_IMPATIENT_ATTEMPTS:
                return
            await asyncio.sleep(answer.retry_after_s * self._random.uniform(1, 1.5))
            port = self._client.other_port(port)

    async def _send(self, request: Request, port: int, prefer: str | None = None) -> Answer:
        answer = await self._client.request(
            "order",
            port,
            "POST",
            request.path,
            user=request.user,
            body=request.body,
            key=request.key,
            prefer=prefer,
        )
        request.answers.append(answer)
        if answer.status == 201 and (wallet := _wallet_in(request, answer)):
            self._oracle.observe_wallet(wallet, f"request {request.number}", answer.ended_s)
        if answer.code == "command_id_reused":
            self._violations.add(f"Request {request.number} is refused, as its key was used for another one.")
        if answer.status == 503 and "Retry-After" not in answer.headers:
            self._violations.add(f"Request {request.number} gets a 503 without Retry-After: {answer.body}.")
        return answer

    async def _read_back(self, request: Request, answer: Answer) -> None:
        """Read what was just done, now and then: a client with an answer finds it on every worker."""
        if answer.status != 201 or self._random.random() > 0.3:
            return
        if request.kind == "open":
            account = Account(UUID(answer.body["id"]), request.user, answer.body["currency"])
            await self._reader.wallet(account, is_strong=self._random.random() < 0.3)
            return
        found = await self._reader.transaction(request.user, answer.body["id"])
        if found.status == 200 and found.body["status"] != "completed":
            self._violations.add(
                f"Request {request.number} was done, and then it was {found.body['status']}."
            )

    async def _follow(self, request: Request, answer: Answer) -> None:
        """Poll what was accepted until it has ended."""
        if request.kind == "open":
            await self._follow_opening(request, answer)
            return
        while not self._gives_up():
            found = await self._reader.transaction(request.user, answer.body["id"])
            if found.status == 200 and found.body["status"] != "pending":
                return
            await asyncio.sleep(POLL_S)

    async def _follow_opening(self, request: Request, answer: Answer) -> None:
        path = answer.headers["Location"]
        while not self._gives_up():
            port = self._client.any_port()
            found = await self._client.request("opening", port, "GET", path, user=request.user)
            if found.status == 404:
                self._violations.add(f"Request {request.number} was accepted, and there is no such wallet.")
            if found.status == 200:
                return
            await asyncio.sleep(POLL_S)


def _wallet_in(request: Request, answer: Answer) -> dict[str, Any] | None:
    """Return the wallet in an answer to a request, if there is one."""
    wallet = answer.body if request.kind == "open" else answer.body.get("wallet")
    return wallet if isinstance(wallet, dict) else None
