"""What Prometheus is told is what happened; it is told on each worker's own port, also while others are away."""

import asyncio
import re
import subprocess
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from uuid import UUID, uuid4

import psycopg2
import pytest
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from mercuria.domain.commands import Deposit, Transfer
from mercuria.domain.rejections import Code
from mercuria.embedded.stack import Stack
from mercuria.kafka.partitioning import Partitioner
from mercuria.observability import metrics
from mercuria.postgres.database import Database
from mercuria.web.lag import TOPICS_OF_STAGES
from tests.deployment.monitoring import program
from tests.harness.stacks import PARTITIONS
from tests.protocol.kafka_client import KafkaClient, open_kafka_client
from tests.web.api_client import ApiClient, ApiClients, settle, until
from tests.web.wire import Reply, ask

OPERATIONS = (Path(__file__).resolve().parents[2] / "docs" / "operations.md").read_text("utf-8")

ANSWERS_WITHIN_S = 1.0
LAG = "mercuria_stage_lag_records"
READY = "mercuria_ready"
BROKEN = "mercuria_ledger_broken_partitions"
IN_FLIGHT = "mercuria_in_flight_minor_units"
OLDEST = "mercuria_in_flight_oldest_seconds"
SUFFIXES = {"counter": "_total", "info": "_info"}
NOT_BASE_UNITS = re.compile(r"_(ms|us|milliseconds|microseconds|minutes|hours|days|percent|kilobytes)(_|$)")

Numbers = dict[tuple[str, ...], float]
"""By the values of its labels, in the order of their names, the samples of one metric."""

PENDING = """\
INSERT INTO transactions
    (created_at, partition, command_offset, id, kind, status, from_wallet_id, to_wallet_id, is_refused, amount,
    currency, metadata)
VALUES (now() - interval '1 hour', -1, 1, gen_random_uuid(), 'transfer', 'pending', gen_random_uuid(),
    gen_random_uuid(), false, 1234567, 'XTS', '{}')"""
BREAK_CHAIN = """\
ALTER TABLE ledger_entries DISABLE TRIGGER ledger_entries_are_final;
CREATE TEMPORARY TABLE gone AS
SELECT * FROM ledger_entries WHERE partition = %(partition)s ORDER BY sequence DESC LIMIT 2;
DELETE FROM ledger_entries USING gone
WHERE ledger_entries.partition = gone.partition AND ledger_entries.sequence = gone.sequence;
ALTER TABLE ledger_entries ENABLE ALWAYS TRIGGER ledger_entries_are_final"""
MEND_CHAIN = "INSERT INTO ledger_entries SELECT * FROM gone ORDER BY sequence"
NOT_PENDING = "DELETE FROM transactions WHERE partition = -1"


class Seen:
    """What workers tell, added up."""

    def __init__(self) -> None:
        self._values: dict[str, Numbers] = {}

    def add(self, text: str) -> None:
        """Add what one worker tells."""
        for family in read_text(text):
            for sample in family.samples:
                values = self._values.setdefault(sample.name, {})
                labels = tuple(value for _, value in sorted(sample.labels.items()))
                values[labels] = values.get(labels, 0) + sample.value

    def of(self, name: str) -> Numbers:
        """Return the samples of a metric."""
        return self._values.get(name, {})

    def since(self, before: "Seen", name: str) -> Numbers:
        """Return by how much samples of a metric have grown, if they have."""
        old = before.of(name)
        return {labels: grown for labels, now in self.of(name).items() if (grown := now - old.get(labels, 0))}


@pytest.fixture
async def kafka_client(settled: Stack) -> AsyncIterator[KafkaClient]:
    """Return a Kafka client of the shared stack."""
    async with open_kafka_client(settled) as opened:
        yield opened


async def scrape(port: int, *fields: str) -> Reply:
    """Ask a worker for its metrics, which does not take long."""
    began_s = time.monotonic()
    reply = await ask(port, "GET", "/metrics", *fields)
    took_s = time.monotonic() - began_s
    assert (reply.status, took_s < ANSWERS_WITHIN_S) == (200, True), (reply, took_s)
    return reply


async def see(ports: Sequence[int]) -> Seen:
    """Return what workers tell."""
    found = Seen()
    for port in ports:
        found.add((await scrape(port)).body.decode())
    return found


async def see_at_rest(ports: Sequence[int]) -> Seen:
    """Return what workers tell when no stage is behind in any partition."""
    partitions = [str(number) for number in range(PARTITIONS)]

    def is_at_rest(found: Seen) -> bool:
        stages = {stage for _, stage in found.of(LAG)}
        return {"wallets", "transactions", "ledger"} <= stages <= set(TOPICS_OF_STAGES) and found.of(LAG) == {
            (partition, stage): 0 for stage in stages for partition in partitions
        }

    return await until(lambda: see(ports), is_at_rest)


async def assert_grows(ports: Sequence[int], before: Seen, expected: dict[str, Numbers]) -> None:
    """Wait until metrics have grown by just so much."""
    grown: dict[str, Numbers] = {}

    async def look() -> bool:
        now = await see(ports)
        grown.update((name, now.since(before, name)) for name in expected)
        return grown == expected

    with suppress(TimeoutError):
        await until(look, bool)
    assert grown == expected


async def test_records_count_by_what_became_of_them(clients: ApiClients, kafka_client: KafkaClient) -> None:
    before = await see_at_rest(clients.ports)
    source, target, nobody = (
        await kafka_client.wallet(500),
        await kafka_client.wallet(),
        kafka_client.new_id(),
    )
    first = Deposit(id=uuid4(), wallet_id=source, amount=1, currency="EUR")
    await kafka_client.do(first)
    await kafka_client.send(first)
    await kafka_client.do(Deposit(id=first.id, wallet_id=source, amount=2, currency="EUR"))
    other = (kafka_client.partitioner.of(source).partition + 1) % PARTITIONS
    await kafka_client.send(Deposit(id=uuid4(), wallet_id=source, amount=7, currency="EUR"), partition=other)
    for payee in (target, nobody):
        await kafka_client.do(
            Transfer(id=uuid4(), wallet_id=source, amount=40, currency="EUR", to_wallet_id=payee)
        )
    for value in (b"{", b'{"type": "%b"}' % uuid4().hex.encode(), b"", b'{"type": "deposit"}'):
        await kafka_client.dead_letter(await kafka_client.put(value, key=None, partition=0))
    commands: Numbers = {
        ("applied", "open_wallet"): 2,
        ("applied", "deposit"): 3,
        ("duplicate", "deposit"): 1,
        ("refused", "deposit"): 1,
        ("forwarded", "deposit"): 1,
        ("applied", "transfer"): 2,
        ("applied", "credit"): 1,
        ("refused", "credit"): 1,
        ("applied", "refund"): 1,
        ("dead_letter", metrics.UNKNOWN): 3,
        ("dead_letter", "deposit"): 1,
    }
    dead = (Code.MALFORMED_JSON, Code.UNKNOWN_COMMAND_TYPE, Code.EMPTY_RECORD, Code.MISSING_FIELD)
    expected: dict[str, Numbers] = {
        "mercuria_commands_total": commands,
        "mercuria_refusals_total": {(Code.COMMAND_ID_REUSED,): 1, (Code.WALLET_NOT_FOUND,): 1},
        "mercuria_dead_letters_total": {(code,): 1 for code in dead},
        "mercuria_batch_commands_sum": {(): sum(commands.values())},
    }
    await assert_grows(clients.ports, before, expected)


async def test_each_batch_is_timed_once(clients: ApiClients, zoe: ApiClient) -> None:
    before = await see_at_rest(clients.ports)
    wallet = await zoe.wallet(500)
    for _ in range(3):
        assert (await zoe.deposit(wallet, 5)).status == 201
    # Each was answered before the next one was asked for. Two entries stand for each deposit.
    parts = ("batch_commands", "decide_seconds", "append_seconds", "commit_seconds")
    expected: dict[str, Numbers] = {f"mercuria_{part}_count": {(): 5} for part in parts}
    await assert_grows(clients.ports, before, expected)
    now = await see_at_rest(clients.ports)
    assert now.since(before, "mercuria_stage_rows_total")["ledger",] == 8
    for stage in ("transactions", "ledger"):
        assert now.since(before, "mercuria_stage_write_seconds_count")[stage,] >= 1
    for name in ("mercuria_outbox_events", "mercuria_outbox_oldest_seconds", "mercuria_stage_waiting"):
        assert set(now.of(name)) >= {("transactions",), ("ledger",)} and not any(now.of(name).values())


async def test_each_partition_is_locked_by_one_worker_that_is_ready(clients: ApiClients) -> None:
    found = await see_at_rest(clients.ports)
    assert found.of("mercuria_lock_held") == {(str(number),): 1 for number in range(PARTITIONS)}
    assert found.of(READY).keys() >= {("postgresql",), ("redis",), ("wallets",), ("kafka",), ("ledger",)}
    assert set(found.of(READY).values()) == {2}
    for port in clients.ports:
        alone = await see([port])
        assert 0 < alone.of("mercuria_recovery_seconds")[()] < 180
        assert any(alone.of("mercuria_lock_held").values())


async def test_a_partition_that_has_gone_to_another_worker_is_that_ones_alone(
    settled: Stack, clients: ApiClients, zoe: ApiClient
) -> None:
    stopped = settled.workers[1]
    await asyncio.to_thread(stopped.stop)
    try:
        # The other one has them all now and nothing comes: what it knows of them is from PostgreSQL.
        alone = await see_at_rest(clients.ports[:1])
        assert len(alone.of("mercuria_lock_held")) == PARTITIONS
    finally:
        await asyncio.to_thread(stopped.start)
    await settle(settled)
    for _ in range(16):
        assert (await zoe.deposit(await zoe.wallet(), 1)).status == 201
    await see_at_rest(clients.ports)


async def test_requests_count_by_the_template_of_their_route(clients: ApiClients, zoe: ApiClient) -> None:
    port = clients.ports[0]
    wallet = await zoe.wallet(100)
    before = await see([port])
    for _ in range(2):
        await zoe.shown(wallet)
    assert (await zoe.withdraw(wallet, 101)).status == 422
    assert (await zoe.get("/wallets/nonsense")).status == 400
    assert (await ask(port, "GET", f"/{uuid4()}")).status == 404
    assert (await ask(port, "DELETE", "/metrics")).status == 405
    assert (await ask(port, "PROPFIND", "/metrics")).status == 405
    assert (await ask(port, f"X{uuid4().hex}", "/metrics")).status == 400
    assert (await ask(port, "GET", "/ /")).status == 400
    now = await see([port])
    assert now.since(before, "mercuria_http_requests_total") == {
        ("GET", "/api/v1/wallets/{wallet_id}", "200"): 2,
        ("GET", "/api/v1/wallets/{wallet_id}", "400"): 1,
        ("POST", "/api/v1/wallets/{wallet_id}/withdraw", "422"): 1,
        ("GET", metrics.UNMATCHED, "404"): 1,
        ("DELETE", metrics.UNMATCHED, "405"): 1,
        (metrics.OTHER_METHOD, metrics.UNMATCHED, "405"): 1,
        (metrics.OTHER_METHOD, metrics.UNMATCHED, "400"): 2,
        ("GET", "/metrics", "200"): 1,
    }
    timed = now.since(before, "mercuria_http_request_seconds_count")
    assert timed["GET", "/api/v1/wallets/{wallet_id}"] == 3
    assert now.of("mercuria_http_requests_in_flight") == {(): 1}
    routes = {route for _, route, _ in now.of("mercuria_http_requests_total")}
    assert not [route for route in routes if re.search(r"[0-9a-f]{8}|nonsense", route)]


async def test_reads_of_the_cache_count_by_what_they_find(clients: ApiClients, zoe: ApiClient) -> None:
    wallet = await zoe.wallet(100)
    before = await see(clients.ports)
    # Only the worker that does not own the wallet has to look.
    for worker in (0, 1):
        await zoe.shown(wallet, worker=worker)
    unknown = await zoe.get(f"/transactions/{uuid4()}")
    assert unknown.status == 404
    now = await see(clients.ports)
    assert now.since(before, "mercuria_cache_reads_total") == {("hit",): 1, ("miss",): 1}


async def test_only_the_port_of_its_own_tells_of_a_worker(settled: Stack) -> None:
    shared = await ask(int(settled.env["MERCURIA_HTTP_PORT"]), "GET", "/metrics")
    assert (shared.status, shared.code) == (404, "not_found")


async def test_what_is_asked_of_postgresql_is_told_and_is_absent_while_it_is_away(
    settled: Stack, clients: ApiClients, zoe: ApiClient
) -> None:
    port = clients.ports[0]
    wallet = await zoe.wallet(100)
    database = Database(settled.env["MERCURIA_DATABASE_OWNER"])
    try:
        await database.execute(PENDING)
        pending = await until(lambda: see([port]), lambda found: found.of(IN_FLIGHT).get(("XTS",)) == 1234567)
    finally:
        await database.execute(NOT_PENDING)
        await database.close()
    assert 3600 <= pending.of(OLDEST)["XTS",] < 3700
    settled.postgres.suspend()
    try:
        assert (await zoe.deposit(wallet, 1)).status == 201
        away = await until(
            lambda: see([port]),
            lambda found: not found.of(IN_FLIGHT) and found.of(READY)["postgresql",] == 0,
        )
        assert {part: away.of(READY)[part,] for part in ("postgresql", "redis", "wallets")} == {
            "postgresql": 0,
            "redis": 1,
            "wallets": 1,
        }
        # What only Kafka knows is told all the same: a stage is behind now.
        behind = await until(lambda: see(clients.ports), lambda found: any(found.of(LAG).values()))
        assert {stage for (_, stage), lag in behind.of(LAG).items() if lag} == {"transactions"}
    finally:
        settled.postgres.resume()
    ended = await until(lambda: see([port]), lambda found: found.of(IN_FLIGHT).get(("XTS",)) == 0)
    assert ended.of(OLDEST)["XTS",] == 0
    after = await see_at_rest(clients.ports)
    assert {part: after.of(READY)[part,] for part in ("postgresql", "redis", "wallets")} == {
        "postgresql": 2,
        "redis": 2,
        "wallets": 2,
    }


async def test_a_broken_ledger_is_told_until_it_is_whole_again(
    settled: Stack, clients: ApiClients, zoe: ApiClient
) -> None:
    before = await see_at_rest(clients.ports)
    wallet = await zoe.wallet(100)
    partition = Partitioner(PARTITIONS).of(UUID(wallet)).partition
    # A lag may be of a moment ago; the entries are there when they are counted.
    await until(
        lambda: see(clients.ports),
        lambda found: found.since(before, "mercuria_stage_rows_total").get(("ledger",), 0) == 2,
    )
    with closing(psycopg2.connect(settled.env["MERCURIA_DATABASE_OWNER"])) as owner, owner.cursor() as cursor:
        cursor.execute(BREAK_CHAIN, {"partition": partition})
        owner.commit()
        try:
            assert (await zoe.deposit(wallet, 1)).status == 201
            lag = (str(partition), "ledger")
            await until(
                lambda: see(clients.ports),
                lambda found: found.of(BROKEN) == {(): 1} and found.of(LAG).get(lag, 0) > 0,
            )
        finally:
            cursor.execute(MEND_CHAIN)
            owner.commit()
    assert (await see_at_rest(clients.ports)).of(BROKEN) == {(): 0}


def promtool_says_of(text: bytes) -> tuple[int, bytes]:
    """Return how promtool ends, and what it says, when it checks metrics."""
    command = [program("promtool"), "check", "metrics"]
    done = subprocess.run(command, input=text, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    return done.returncode, done.stdout


async def test_it_is_text_or_openmetrics_as_asked_for_and_named_as_prometheus_names(
    clients: ApiClients,
) -> None:
    port = clients.ports[0]
    text = await scrape(port, "Accept: text/plain;version=0.0.4;q=0.5,*/*;q=0.1")
    assert text.headers["Content-Type"].startswith("text/plain; version=0.0.4; charset=utf-8")
    accept = "Accept: application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
    openmetrics = await scrape(port, accept)
    assert openmetrics.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    assert openmetrics.body.endswith(b"# EOF\n")
    assert promtool_says_of(text.body) == (0, b"")
    families = list(read_openmetrics(openmetrics.body.decode()))
    assert {each.name.removesuffix("_info") for each in families} == {
        each.name.removesuffix("_total").removesuffix("_info") for each in read_text(text.body.decode())
    }
    for each in families:
        assert re.fullmatch(r"(mercuria|process|python)(_[a-z0-9]+)*", each.name), each
        assert each.documentation and not NOT_BASE_UNITS.search(each.name), each
        assert each.type not in each.name and each.type != "unknown", each
        for sample in each.samples:
            assert re.fullmatch(r"[a-z_]+", "".join(sample.labels)) or not sample.labels, sample
            assert not set(sample.labels) & {"job", "instance"}, sample


def test_the_docs_list_each_metric_with_its_labels() -> None:
    instruments = [each for each in vars(metrics).values() if isinstance(each, MetricWrapperBase)]
    ours = {
        (each._name + SUFFIXES.get(each._type, ""), each._labelnames)
        for each in instruments
        if not each._labelvalues
    }
    listed = re.findall(r"^\| `(mercuria_\w+)(?:\{([a-z,]+)\})?` \|", OPERATIONS, re.MULTILINE)
    assert {(name, tuple(filter(None, labels.split(",")))) for name, labels in listed} == ours - {
        ("mercuria_info", ())
    } | {("mercuria_info", ("version",))}
    assert len(listed) == len(ours)
