"""`mercuria reconcile`: what agrees is found to agree, also under load, and a difference in any store is named."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import urlsplit

import msgspec
import psutil
import psycopg2
import redis

from mercuria.domain.wallet import Wallet
from mercuria.embedded.stack import Stack
from tests.embedded.conftest import clean_environ
from tests.projections.test_stack import run_on
from tests.protocol.kafka_client import open_kafka_client
from tests.redis.conftest import until

RECONCILE = [sys.executable, "-m", "mercuria", "reconcile", "--json"]


def reconcile(stack: Stack) -> tuple[int, dict[str, Any]]:
    """Run the command; return its exit code and what it found."""
    environ = clean_environ() | stack.env
    done = subprocess.run(RECONCILE, env=environ, capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


@contextmanager
def as_owner(stack: Stack) -> Iterator[Any]:
    """Let the block change PostgreSQL as the owner of the tables."""
    with (
        closing(psycopg2.connect(stack.env["MERCURIA_DATABASE_OWNER"])) as connection,
        connection.cursor() as cursor,
    ):
        connection.autocommit = True
        yield cursor


async def test_under_load_everything_agrees(live_stack: Stack) -> None:
    found: list[tuple[int, dict[str, Any]]] = []

    async def reconciled(run: Any) -> None:
        await run.wait_for_answers(300)
        found.append(await asyncio.to_thread(reconcile, live_stack))

    await run_on(live_stack, commands=600, rate_per_s=100).run(reconciled)
    ((code, report),) = found
    assert (code, report["sentences"]) == (0, [])
    assert report["wallets"] > 50 and report["cached"] > 0


async def test_a_wallet_that_was_opened_meanwhile_is_no_difference(quiet: Stack) -> None:
    postgres = urlsplit(quiet.env["MERCURIA_DATABASE"]).port
    async with open_kafka_client(quiet) as kafka_client:
        quiet.postgres.suspend()
        try:
            comparing = await asyncio.create_subprocess_exec(
                *RECONCILE, env=clean_environ() | quiet.env, stdout=subprocess.PIPE
            )
            # It waits for PostgreSQL now, and has read the workers' tables.
            await until(lambda: is_connected(comparing.pid, postgres))
            await kafka_client.wallet(5)
        finally:
            quiet.postgres.resume()
    said, _ = await comparing.communicate()
    assert (comparing.returncode, json.loads(said)["sentences"]) == (0, [])


def is_connected(pid: int, port: int | None) -> bool:
    """Return whether a process has a connection to a port."""
    return any(each.raddr and each.raddr.port == port for each in psutil.Process(pid).net_connections("tcp"))


async def test_a_changed_balance_in_postgresql_is_named(quiet: Stack) -> None:
    with as_owner(quiet) as cursor:
        cursor.execute("SELECT id::text, balance FROM wallets WHERE balance > 1 ORDER BY id LIMIT 1")
        id_, balance = cursor.fetchone()
        cursor.execute("UPDATE wallets SET balance = %s WHERE id = %s", [balance - 1, id_])
        code, report = reconcile(quiet)
        cursor.execute("UPDATE wallets SET balance = %s WHERE id = %s", [balance, id_])
    assert code == 1
    assert any(id_ in each and "the workers' tables" in each for each in report["sentences"])
    assert reconcile(quiet)[0] == 0


async def test_a_changed_entry_of_the_ledger_is_named(quiet: Stack) -> None:
    change = "UPDATE ledger_entries SET amount = amount + %s WHERE partition = %s AND sequence = %s"
    with as_owner(quiet) as cursor:
        cursor.execute(
            "SELECT partition, sequence, wallet_id::text FROM ledger_entries WHERE kind = 'deposit'"
            " AND wallet_id IS NOT NULL LIMIT 1"
        )
        partition, sequence, id_ = cursor.fetchone()
        cursor.execute("ALTER TABLE ledger_entries DISABLE TRIGGER ledger_entries_are_final")
        cursor.execute(change, [1, partition, sequence])
        code, report = reconcile(quiet)
        cursor.execute(change, [-1, partition, sequence])
        cursor.execute("ALTER TABLE ledger_entries ENABLE ALWAYS TRIGGER ledger_entries_are_final")
    assert code == 1
    assert [each for each in report["sentences"] if id_ in each and "the ledger has an entry" in each]


def richer(value: bytes) -> bytes:
    """Return a cached wallet with one minor unit more: 19 digits of its version, the wallet, its time and MAC."""
    wallet = msgspec.msgpack.decode(value[19:-24], type=Wallet)
    changed = msgspec.structs.replace(wallet, balance=wallet.balance + 1)
    return value[:19] + msgspec.msgpack.Encoder(uuid_format="bytes").encode(changed) + value[-24:]


async def test_a_changed_wallet_in_redis_is_named(quiet: Stack) -> None:
    with closing(redis.Redis.from_url(quiet.env["MERCURIA_REDIS"])) as client:
        # Some are of earlier epochs, which count no more.
        kept = {
            key: (client.get(key), client.pttl(key)) for key in client.scan_iter("mercuria:sealed-balance:*")
        }
        for key, (value, life_ms) in kept.items():
            client.set(key, richer(value), px=life_ms)
        try:
            code, report = reconcile(quiet)
        finally:
            for key, (value, life_ms) in kept.items():
                client.set(key, value, px=life_ms)
    assert code == 1
    assert report["differences"] == report["cached"] > 0
    assert all("Redis" in each for each in report["sentences"])


async def test_a_changed_counter_is_named_wherever_it_is(quiet: Stack) -> None:
    with as_owner(quiet) as cursor:
        cursor.execute("UPDATE user_totals SET volume = volume + 1")
        code, report = reconcile(quiet)
        cursor.execute("UPDATE user_totals SET volume = volume - 1")
    assert code == 1
    assert [each for each in report["sentences"] if each.startswith("User ") and "the ledger has" in each]
    with closing(redis.Redis.from_url(quiet.env["MERCURIA_REDIS"])) as client:
        key = next(client.scan_iter("analytics:sealed:day:*"))
        field, value = next(iter(client.hgetall(key).items()))
        count, volume, mac = value.split()
        client.hset(key, field, b"%b %d %b" % (count, int(volume) + 1, mac))
        code, report = reconcile(quiet)
        assert (code, report["differences"]) == (1, 1)
        assert "in Redis" in report["sentences"][0]
        # What Redis has lost is filled again.
        client.flushall()
    assert reconcile(quiet)[0] == 0
