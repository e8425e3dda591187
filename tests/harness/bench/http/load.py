"""The load of `harness bench http`: closed-loop clients on keep-alive connections, in a process of its own.

    python -P load.py < plan.json > outcome.json

It takes its processor time from the servers that it measures, so it does as little as it can for each request: it
imports nothing beside the standard library, puts requests together from bytes that are there before, reads no more of
an answer than where it ends and what its status is, and waits on the sockets themselves, without an event loop.
"""

import gc
import json
import random
import select
import socket
import sys
import time
from array import array
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Literal, NamedTuple, Protocol

ANSWER_TIMEOUT_S = 40
"""After so long without any answer, the requests in flight count as lost."""
CHUNK_BYTES = 65_536
SAMPLE_EVERY = 100
"""Of so many transfers, the answer to one is kept."""
LOST = "lost"
"""What counts as the status of a request that got no answer."""
AMOUNT = 100
"""What each transfer moves, in minor units."""

CONTENT_LENGTH = b"Content-Length: "
END_OF_HEADERS = b"\r\n\r\n"

Indices = tuple[int, ...]
"""Of wallets, in the plan."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do. The same seed chooses the same wallets."""

    kind: Literal["transfers", "reads"]
    name: str
    """Begins the idempotency keys, so no two plans of a stack have the same."""
    host: str
    port: int
    connections: int
    seconds: float
    wallets: list[tuple[str, str]]
    """Id and owner's access token of each."""
    seed: int


@dataclass(slots=True)
class Outcome:
    """The outcome. Latencies are of successes, from the first byte sent to the last read."""

    answered: int = 0
    """Answers with the status of success, also those that came after the time was over."""
    per_s: float = 0.0
    """Of those within the time."""
    p50_ms: float = 0.0
    p95_ms: float = 0.0
    p99_ms: float = 0.0
    max_ms: float = 0.0
    cpu_s: float = 0.0
    others: dict[str, int] = field(default_factory=dict)
    """How many answers had which other status."""
    examples: dict[str, str] = field(default_factory=dict)
    """The first answer with each of them."""
    moved: list[int] = field(default_factory=list)
    """By how much the answered transfers have changed each wallet, in minor units."""
    unsure: list[int] = field(default_factory=list)
    """The wallets, by their index, of transfers about which the answer leaves open whether they count."""
    samples: list[str] = field(default_factory=list)
    """Some answers to transfers."""


class Answer(NamedTuple):
    """An answer, as far as it matters."""

    status: bytes
    body: bytes


class Job(Protocol):
    """A kind of request, sent again and again."""

    success: bytes
    """The status of success."""

    def request(self) -> tuple[bytes, Indices]:
        """Return the next request, and the wallets that it moves money between."""

    def succeeded(self, wallets: Indices, body: bytes) -> None:
        """Take a success."""

    def failed(self, wallets: Indices) -> None:
        """Take another answer, or none."""


class Transfers:
    """Transfers between wallets chosen at random, each under an idempotency key of its own."""

    success = b"201"

    def __init__(self, plan: Plan, outcome: Outcome) -> None:
        self._outcome = outcome
        self._random = random.Random(plan.seed).random
        self._count = len(plan.wallets)
        self._number = 0
        self._heads = [_head(plan, token) for _, token in plan.wallets]
        self._froms = [
            f'\r\n\r\n{{"from_wallet_id":"{id_}","to_wallet_id":"'.encode() for id_, _ in plan.wallets
        ]
        self._ids = [id_.encode() for id_, _ in plan.wallets]
        outcome.moved = [0] * self._count

    def request(self) -> tuple[bytes, Indices]:
        """Return the next transfer."""
        count = self._count
        sender = int(count * self._random())
        # Any but the sender.
        receiver = (sender + 1 + int((count - 1) * self._random())) % count
        self._number += 1
        request = b"%b%08x%b%b%b" % (
            self._heads[sender],
            self._number,
            self._froms[sender],
            self._ids[receiver],
            TRANSFER_ENDS,
        )
        return request, (sender, receiver)

    def succeeded(self, wallets: Indices, body: bytes) -> None:
        """Note what it has moved."""
        sender, receiver = wallets
        self._outcome.moved[sender] -= AMOUNT
        self._outcome.moved[receiver] += AMOUNT
        if self._number % SAMPLE_EVERY == 0:
            self._outcome.samples.append(body.decode())

    def failed(self, wallets: Indices) -> None:
        """Note that it may count or not."""
        self._outcome.unsure += wallets


TRANSFER_ENDS = b'","amount":%d}' % AMOUNT


def _head(plan: Plan, token: str) -> bytes:
    """Return a transfer's request up to the number in its idempotency key."""
    uuid = "0" * 36
    size = len(f'{{"from_wallet_id":"{uuid}","to_wallet_id":"{uuid}') + len(TRANSFER_ENDS)
    return (
        f"POST /api/v1/transactions HTTP/1.1\r\nHost: {plan.host}:{plan.port}\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {size}\r\nIdempotency-Key: {plan.name}-"
    ).encode()


class Reads:
    """Wallets chosen at random, each asked for by its owner."""

    success = b"200"

    def __init__(self, plan: Plan) -> None:
        self._random = random.Random(plan.seed).random
        self._requests = [
            (
                f"GET /api/v1/wallets/{id_} HTTP/1.1\r\nHost: {plan.host}:{plan.port}\r\n"
                f"Authorization: Bearer {token}\r\n\r\n"
            ).encode()
            for id_, token in plan.wallets
        ]

    def request(self) -> tuple[bytes, Indices]:
        """Return the request for a wallet."""
        return self._requests[int(len(self._requests) * self._random())], ()

    def succeeded(self, wallets: Indices, body: bytes) -> None:
        """A read changes nothing."""

    def failed(self, wallets: Indices) -> None:
        """A read changes nothing."""


class Connection:
    """One connection, with at most one request in flight."""

    __slots__ = ("is_waiting", "part", "sent_s", "socket", "wallets")

    def __init__(self, plan: Plan) -> None:
        self.socket = socket.create_connection((plan.host, plan.port), ANSWER_TIMEOUT_S)
        # Blocking is safe: it is read when data is there, and one request always fits its buffer. With a timeout, each
        # call would poll first.
        self.socket.settimeout(None)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.part = b""
        self.is_waiting = False
        self.sent_s = 0.0
        self.wallets: Indices = ()

    def read(self) -> Answer | None:
        """Return the answer if all of it is there.

        Raises:
            ConnectionError: the server has closed the connection.
        """
        chunk = self.socket.recv(CHUNK_BYTES)
        if not chunk:
            raise ConnectionError
        data = self.part + chunk if self.part else chunk
        answer = read_answer(data)
        self.part = data if answer is None else b""
        return answer


def read_answer(data: bytes) -> Answer | None:
    """Return the answer in `data`; None where it is not complete. Every answer of Mercuria has a Content-Length."""
    headers_end = data.find(END_OF_HEADERS)
    if headers_end < 0:
        return None
    length_at = data.index(CONTENT_LENGTH, 0, headers_end) + len(CONTENT_LENGTH)
    body_at = headers_end + len(END_OF_HEADERS)
    if len(data) < body_at + int(data[length_at : data.index(b"\r", length_at)]):
        return None
    return Answer(data[9:12], data[body_at:])


class Load:
    """Carries out a plan."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._outcome = Outcome()
        self._job: Job = Transfers(plan, self._outcome) if plan.kind == "transfers" else Reads(plan)
        self._poll = select.epoll()
        self._connections: dict[int, Connection] = {}
        self._latencies_s = array("d")
        self._in_flight = 0
        self._ends_s = 0.0
        self._in_time = 0

    def run(self) -> Outcome:
        """Send requests on all connections until the time is over, and wait for the last answers."""
        connections = [self._connect() for _ in range(self._plan.connections)]
        began_cpu_s = time.process_time()
        self._ends_s = time.perf_counter() + self._plan.seconds
        for connection in connections:
            self._send(connection)
        while self._in_flight:
            ready = self._poll.poll(ANSWER_TIMEOUT_S)
            if not ready:
                break
            for number, _ in ready:
                self._receive(self._connections[number])
        for connection in self._connections.values():
            self._lose(connection)
            connection.socket.close()
        self._outcome.cpu_s = time.process_time() - began_cpu_s
        return self._finished_outcome()

    def _connect(self) -> Connection:
        connection = Connection(self._plan)
        self._connections[connection.socket.fileno()] = connection
        self._poll.register(connection.socket, select.EPOLLIN)
        return connection

    def _send(self, connection: Connection) -> None:
        request, connection.wallets = self._job.request()
        connection.is_waiting = True
        self._in_flight += 1
        connection.sent_s = time.perf_counter()
        # The next read reports what is wrong with the connection.
        with suppress(ConnectionError):
            connection.socket.sendall(request)

    def _receive(self, connection: Connection) -> None:
        try:
            answer = connection.read()
        except ConnectionError:
            connection = self._replace(connection)
        else:
            if answer is None:
                return
            self._take(connection, answer)
        if time.perf_counter() < self._ends_s:
            self._send(connection)

    def _take(self, connection: Connection, answer: Answer) -> None:
        now_s = time.perf_counter()
        connection.is_waiting = False
        self._in_flight -= 1
        if answer.status != self._job.success:
            self._job.failed(connection.wallets)
            self._count_other(answer.status.decode(), answer.body)
            return
        self._latencies_s.append(now_s - connection.sent_s)
        self._in_time += now_s < self._ends_s
        self._job.succeeded(connection.wallets, answer.body)

    def _replace(self, closed: Connection) -> Connection:
        """Open another connection in place of one that the server has closed."""
        self._lose(closed)
        del self._connections[closed.socket.fileno()]
        closed.socket.close()
        return self._connect()

    def _lose(self, connection: Connection) -> None:
        """Count the request in flight as lost, if there is one."""
        if connection.is_waiting:
            connection.is_waiting = False
            self._in_flight -= 1
            self._job.failed(connection.wallets)
            self._count_other(LOST, b"")

    def _count_other(self, status: str, body: bytes) -> None:
        outcome = self._outcome
        outcome.others[status] = outcome.others.get(status, 0) + 1
        outcome.examples.setdefault(status, body.decode("utf-8", "replace"))

    def _finished_outcome(self) -> Outcome:
        outcome, latencies_s = self._outcome, sorted(self._latencies_s)
        outcome.answered = len(latencies_s)
        outcome.per_s = self._in_time / self._plan.seconds
        if latencies_s:
            outcome.p50_ms, outcome.p95_ms, outcome.p99_ms, outcome.max_ms = (
                1000 * share_of(latencies_s, share) for share in (0.50, 0.95, 0.99, 1.0)
            )
        return outcome


def share_of(ordered: Sequence[float], share: float) -> float:
    """Return the value that `share` of the values do not exceed."""
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def main() -> None:
    """Carry out the plan from standard input."""
    plan = Plan(**json.load(sys.stdin))
    # Nothing here is garbage that refers to itself.
    gc.disable()
    json.dump(asdict(Load(plan).run()), sys.stdout)


if __name__ == "__main__":
    main()
