"""Records that end every worker: a log line says where they are, and `mercuria skip` has them passed over for good."""

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest
from aiokafka.admin import AIOKafkaAdminClient

from mercuria.agents.batch import Batch
from mercuria.agents.incoming import command_in
from mercuria.domain.commands import Deposit
from mercuria.domain.rejections import Code
from mercuria.embedded.stack import Stack
from mercuria.kafka.client import Sent, event_reader, read_log
from mercuria.kafka.cloudevents import read_event
from mercuria.kafka.skips import Skip, Skips, record_of
from mercuria.redis.replies import Address
from mercuria.tables.balance_rows import AppliedPosition
from mercuria.topics import SKIPS, TRANSACTION_EVENTS, WALLET_COMMANDS, WALLET_DEAD_LETTERS, WALLET_EVENTS
from tests.embedded.conftest import clean_environ, eventually
from tests.harness.audit.stack import audit_stack
from tests.harness.stacks import fresh_stack
from tests.projections.model import read_tables
from tests.protocol.kafka_client import KafkaClient, open_kafka_client
from tests.protocol.planted_worker import DECIDE, ENTER, PROJECT
from tests.protocol.test_batches import INSTALLATION, LogRecord

PLANTED_WORKER = (sys.executable, str(Path(__file__).with_name("planted_worker.py")), "poison")
PARTITION = 3

Checkpoint = tuple[str, str, str]
"""A record's topic, partition and offset, as the command takes them."""


def mercuria(stack: Stack, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command on a stack, to its end."""
    command = [sys.executable, "-m", "mercuria", *words]
    environ = clean_environ() | stack.env
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=120)


def skip(stack: Stack, *words: str) -> subprocess.CompletedProcess[str]:
    """Run `mercuria skip` with a reason."""
    return mercuria(stack, "skip", *words, "--reason", "ends all workers", "--by", "zoe", "--yes")


def crashed_at(stack: Stack, topic: str) -> Checkpoint:
    """Return which record of a topic has ended a worker, as its log says."""
    found: list[Checkpoint] = []
    named = re.compile(
        rf"The record at topic ({re.escape(topic)}), partition (\d+), offset (\d+) ends this worker"
    )

    def look() -> bool:
        for log in (stack.directory.path / "logs").glob("worker-*.log"):
            found[:] = named.findall(log.read_text("utf-8", "replace")) or found
        return bool(found)

    eventually(look, 60)
    return found[-1]


def deposit(wallet_id: UUID, reference: str | None = None) -> Deposit:
    """Return a deposit of 1."""
    return Deposit(id=uuid4(), wallet_id=wallet_id, amount=1, currency="EUR", reference=reference)


async def all_written(stack: Stack, wallet_id: UUID, balance: int) -> None:
    """Wait until PostgreSQL shows a wallet with a balance."""

    def is_there() -> bool:
        row = read_tables(stack.env["MERCURIA_DATABASE"]).wallets.get(wallet_id)
        return row is not None and row.balance == balance

    await asyncio.to_thread(eventually, is_there, 60)


async def dead_letters(stack: Stack, topic: str) -> list[dict[str, bytes]]:
    """Return the headers of the dead letters of a topic's records."""
    found = [dict(each.headers) async for each in read_log(stack.env["MERCURIA_KAFKA"], WALLET_DEAD_LETTERS)]
    return [headers for headers in found if headers["topic"] == topic.encode()]


async def ends_of(stack: Stack, topic: str) -> int:
    async with event_reader(stack.env["MERCURIA_KAFKA"], topic) as reader:
        return sum((await reader.end_offsets(reader.assignment())).values())


STRANGE = {
    "a header without a value": (b"{}", [("reply-to", None)]),
    "a value that is none": (None, []),
    "text that is no JSON": (b"\xff{", [("reply-to", b"\xff")]),
}


def skip_of(offset: int, topic: str = WALLET_COMMANDS, partition: int = 0) -> Skip:
    return Skip(topic, partition, offset, "ends all workers", "zoe", "2026-11-28T12:00:00.000Z")


@pytest.mark.parametrize(("value", "headers"), STRANGE.values(), ids=STRANGE.keys())
def test_whatever_is_wrong_with_a_record_it_is_passed_over(value: bytes | None, headers: list[Any]) -> None:
    record = LogRecord(WALLET_COMMANDS, 0, 7, 10**12, b"key", value, headers)
    batch = Batch(INSTALLATION, 0, AppliedPosition(6), {}, {})
    assert batch.take(record, command_in(record, {7: skip_of(7)}))
    assert read_event(batch.outputs.events[0].value or b"").code == "skipped" and batch.offset == 7
    assert batch.outputs.replies == [] and batch.outputs.dead_letters[0].key == b"key"


def test_a_request_that_waits_for_a_command_is_answered_when_it_is_skipped() -> None:
    command = Deposit(id=uuid4(), wallet_id=uuid4(), amount=1, currency="EUR")
    node, value = uuid4().hex, msgspec.json.encode(command)
    reply_to = Address(node, 5).header(value, INSTALLATION.seal)
    record = LogRecord(WALLET_COMMANDS, 0, 7, 10**12, b"key", value, [reply_to])
    batch = Batch(INSTALLATION, 0, AppliedPosition(6), {}, {})
    batch.take(record, command_in(record, {7: skip_of(7)}))
    ((asked, reply),) = batch.outputs.replies
    assert (asked, reply.number, reply.code) == (node, 5, Code.SKIPPED)
    event = read_event(batch.outputs.events[0].value or b"")
    assert (event.command_id, event.command_type, event.wallet_id) == (
        command.id,
        "deposit",
        command.wallet_id,
    )
    assert batch.receipts == {}


async def test_a_worker_knows_what_is_skipped_and_hears_of_more(
    kafka_client: KafkaClient, live_stack: Stack
) -> None:
    far = skip_of(2**40, TRANSACTION_EVENTS)
    first, second = record_of(far), record_of(msgspec.structs.replace(far, offset=2**40 + 1))
    await kafka_client.put(b"no skip", key=None, partition=0, topic=SKIPS)
    await kafka_client.put(first.value, key=first.key, partition=0, topic=SKIPS)
    async with Skips(live_stack.env["MERCURIA_KAFKA"]) as skips:
        assert skips.of(TRANSACTION_EVENTS, 0) == {}
        await skips.up_to_date(1)
        assert list(skips.of(TRANSACTION_EVENTS, 0)) == [2**40] and skips.of(TRANSACTION_EVENTS, 1) == {}
        await kafka_client.put(second.value, key=second.key, partition=0, topic=SKIPS)
        await asyncio.to_thread(eventually, lambda: len(skips.of(TRANSACTION_EVENTS, 0)) == 2)


@pytest.mark.timeout(400)
async def test_records_that_end_every_worker_are_passed_over_for_good(tmp_path: Path) -> None:
    place, poison, behind, wallet_id = await _end_workers(tmp_path)
    # As `mercuria up --workers 0`.
    with fresh_stack(tmp_path, 0, print) as servers:
        await _forget_skips(servers)
        none = await asyncio.to_thread(mercuria, servers, "skip", "--list")
        assert none.returncode == 0 and none.stdout == "Nothing is skipped.\n", none
        done = await asyncio.to_thread(skip, servers, *place)
        assert done.returncode == 0 and "by zoe at" in done.stdout, done
        again = await asyncio.to_thread(skip, servers, *place)
        assert again.returncode == 0 and again.stdout.startswith("It is skipped already"), again
        words = ("skip", *place, "--reason", "again", "--json")
        known = json.loads((await asyncio.to_thread(mercuria, servers, *words)).stdout)
        assert (known["topic"], known["by"]) == (WALLET_COMMANDS, "zoe")
    with fresh_stack(tmp_path, 2, print, worker_command=PLANTED_WORKER) as stack:
        async with open_kafka_client(stack) as kafka_client:
            await _assert_skipped(stack, poison, behind)
            assert (await kafka_client.deposit(wallet_id, 1)).balance == 3
            await _a_stage_passes_an_event(stack, kafka_client, wallet_id, PROJECT, WALLET_EVENTS)
            other = await kafka_client.wallet(partition=PARTITION)
            await _a_stage_passes_an_event(stack, kafka_client, other, ENTER, TRANSACTION_EVENTS)
        await _assert_rebuilt_without_them(stack)
        assert (await audit_stack(stack)).violations == []


async def _end_workers(tmp_path: Path) -> tuple[Checkpoint, Sent, Sent, UUID]:
    """Let a command end a worker each time that it starts; return where it is, and one behind it, and their wallet."""
    with fresh_stack(tmp_path, 1, print, worker_command=PLANTED_WORKER) as stack:
        async with open_kafka_client(stack) as kafka_client:
            wallet_id = await kafka_client.wallet(partition=PARTITION)
            before = await kafka_client.send(deposit(wallet_id))
            assert (await kafka_client.answer(before)).balance == 1
            poison = await kafka_client.send(deposit(wallet_id, DECIDE))
            behind = await kafka_client.send(deposit(wallet_id))
            place = await asyncio.to_thread(crashed_at, stack, WALLET_COMMANDS)
            assert place == (WALLET_COMMANDS, str(PARTITION), str(poison.offset))
            decided = await asyncio.to_thread(
                skip, stack, WALLET_COMMANDS, str(PARTITION), str(before.offset)
            )
            assert decided.returncode == 1 and "is decided already" in decided.stderr, decided
            missing = await asyncio.to_thread(
                skip, stack, WALLET_COMMANDS, str(PARTITION), str(behind.offset + 1)
            )
            assert missing.returncode == 1 and "no record" in missing.stderr, missing
            assert not kafka_client.events[poison] and not kafka_client.events[behind]
    return place, poison, behind, wallet_id


async def _forget_skips(stack: Stack) -> None:
    """Let an installation be as one is that is older than skips."""
    admin = AIOKafkaAdminClient(bootstrap_servers=stack.env["MERCURIA_KAFKA"])
    await admin.start()
    try:
        await admin.delete_topics([SKIPS])
        async with asyncio.timeout(30):
            while SKIPS in await admin.list_topics():  # noqa: ASYNC110  Kafka has to be asked
                await asyncio.sleep(0.05)
    finally:
        await admin.close()


async def _assert_skipped(stack: Stack, poison: Sent, behind: Sent) -> None:
    """Assert that one command was refused as skipped, and one behind it decided."""
    wanted = {f"{PARTITION}-{poison.offset}": "skipped", f"{PARTITION}-{behind.offset}": 2}
    found: dict[str, object] = {}
    async with asyncio.timeout(60):
        while found != wanted:
            async for record in read_log(stack.env["MERCURIA_KAFKA"], WALLET_EVENTS):
                event = json.loads(record.value)
                if event["id"] in wanted:
                    found[event["id"]] = event["data"].get("code") or event["data"]["balance"]
    (headers,) = {str(each): each for each in await dead_letters(stack, WALLET_COMMANDS)}.values()
    assert headers["code"] == b"skipped" and headers["offset"] == str(poison.offset).encode()
    assert (headers["reason"], headers["skipped-by"]) == (b"ends all workers", b"zoe")


async def _a_stage_passes_an_event(
    stack: Stack, kafka_client: KafkaClient, wallet_id: UUID, poison: str, topic: str
) -> None:
    """Let an event end the worker whose stage reads it, among others in its batch, and have it skipped."""
    for number in range(20):
        await kafka_client.send(deposit(wallet_id, poison if number == 10 else None))
    place = await asyncio.to_thread(crashed_at, stack, topic)
    done = await asyncio.to_thread(skip, stack, *place)
    assert done.returncode == 0, done
    last = await kafka_client.deposit(wallet_id, 1)
    await all_written(stack, wallet_id, last.balance)
    (headers,) = {str(each): each for each in await dead_letters(stack, topic)}.values()
    assert headers["code"] == b"skipped" and headers["offset"] == place[2].encode()


async def _assert_rebuilt_without_them(stack: Stack) -> None:
    """Assert that the books lack what was skipped, also when they are made again, and that nothing else is wrong."""
    listed = json.loads((await asyncio.to_thread(mercuria, stack, "skip", "--list", "--json")).stdout)
    assert [each["topic"] for each in listed] == [TRANSACTION_EVENTS, WALLET_COMMANDS, WALLET_EVENTS]
    before = read_tables(stack.env["MERCURIA_DATABASE"])
    told = await ends_of(stack, TRANSACTION_EVENTS)
    rebuilt = await asyncio.to_thread(mercuria, stack, "rebuild", "--yes")
    assert rebuilt.returncode == 0, rebuilt
    assert read_tables(stack.env["MERCURIA_DATABASE"]) == before
    assert await ends_of(stack, TRANSACTION_EVENTS) == told
    reconciled = await asyncio.to_thread(mercuria, stack, "reconcile", "--json")
    assert reconciled.returncode == 1, reconciled
    sentences = "\n".join(json.loads(reconciled.stdout)["sentences"])
    assert "events add up to" in sentences, sentences
    assert "the ledger has no entry for a change of 1" in sentences, sentences
    verified = await asyncio.to_thread(mercuria, stack, "ledger", "verify")
    print(verified.stdout, verified.stderr)
    assert verified.returncode == 1, verified
