"""The AsyncAPI document is valid, and says what is on Kafka; and the page that shows it needs nobody else."""

import json
import re
from pathlib import Path
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from jsonschema import Draft7Validator

from mercuria.domain.commands import ClientCommand
from mercuria.embedded.stack import Stack
from mercuria.topics import TOPICS, WALLET_COMMANDS, WALLET_DEAD_LETTERS
from mercuria.web.asyncapi import CHANNELS, document, is_for_clients
from tests.web.api_client import ApiClient
from tests.web.wire import ask

SCHEMA = json.loads((Path(__file__).parents[1] / "data" / "asyncapi-3.0.0.schema.json").read_text("utf-8"))
DOCUMENT = document(partitions=12, replication=1)
MESSAGES = DOCUMENT["components"]["messages"]
NEWEST = 200
"""So many records of each partition are looked at."""


def test_the_document_is_valid() -> None:
    assert [error.message for error in Draft7Validator(SCHEMA).iter_errors(DOCUMENT)] == []


def test_schemas_are_json_schemas_and_lead_to_what_there_is() -> None:
    for name, schema in DOCUMENT["components"]["schemas"].items():
        Draft7Validator.check_schema(schema)
        assert schema.get("description") or "enum" in schema, name
    for reference in set(re.findall(r'"\$ref":"([^"]+)"', msgspec.json.encode(DOCUMENT).decode())):
        found: Any = DOCUMENT
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]


def test_every_topic_is_there_but_those_that_are_nobody_elses() -> None:
    assert set(CHANNELS) == {
        topic.name for topic in TOPICS if not topic.name.endswith((".changelog", ".skips"))
    }
    used = [name for channel in DOCUMENT["channels"].values() for name in channel["messages"]]
    assert sorted(used) == sorted(MESSAGES)


def test_clients_may_send_commands_and_nothing_else() -> None:
    commands = {kind.__name__ for kind in ClientCommand.__args__}
    assert {name for name, message in MESSAGES.items() if is_for_clients(message)} == commands


async def test_a_worker_tells_the_document(live_stack: Stack) -> None:
    reply = await ask(live_stack.workers[0].port, "GET", "/api/v1/asyncapi.json")
    assert (reply.status, reply.headers["Content-Type"]) == (200, "application/json")
    assert [channel["bindings"]["kafka"]["topic"] for channel in reply.document["channels"].values()] == [
        *CHANNELS
    ]
    for channel in reply.document["channels"].values():
        assert channel["bindings"]["kafka"]["partitions"] == int(live_stack.env["MERCURIA_PARTITIONS"])
    assert reply.document["components"] == msgspec.to_builtins(DOCUMENT["components"])


async def test_records_on_kafka_are_as_the_document_says(
    live_stack: Stack, zoe: ApiClient, operator: ApiClient
) -> None:
    wallet, other = await zoe.wallet(100), await zoe.wallet()
    assert (await zoe.transfer(wallet, other, 30)).status == 201
    assert (await zoe.withdraw(wallet, 1000)).status == 422
    assert (await operator.post(f"/wallets/{other}/freeze", {"reason": "A test."})).status == 200
    checks = {
        message["name"]: Draft7Validator(DOCUMENT | message["payload"]) for message in MESSAGES.values()
    }
    seen: set[str] = set()
    for topic in set(CHANNELS) - {WALLET_DEAD_LETTERS}:
        for record in await newest(live_stack, topic):
            value = read(record.value)
            name = value.get("type") if isinstance(value, dict) else None
            if topic == WALLET_COMMANDS and (
                name not in checks or ("mac" not in value and not is_valid(checks[name], value))
            ):
                continue  # Other tests send what is no command.
            assert [error.message for error in checks[str(name)].iter_errors(value)] == [], value
            seen.add(str(name))
    # What a moment ago was decided is on the topics that follow a moment later, and there is older.
    assert {
        "open_wallet",
        "transfer",
        "wallet.created",
        "wallet.balance_updated",
        "wallet.command_rejected",
    } <= seen
    assert {"wallet.status_changed", "transaction.completed", "ledger.entry_created"} <= seen


async def newest(stack: Stack, topic: str) -> list[Any]:
    """Return the newest records of a topic."""
    tps = [TopicPartition(topic, number) for number in range(int(stack.env["MERCURIA_PARTITIONS"]))]
    found: list[Any] = []
    async with AIOKafkaConsumer(bootstrap_servers=stack.env["MERCURIA_KAFKA"]) as consumer:
        ends = await consumer.end_offsets(tps)
        consumer.assign(tps)
        for tp, end in ends.items():
            consumer.seek(tp, max(0, end - NEWEST))
        for tp, end in ends.items():
            while await consumer.position(tp) < end:
                for records in (await consumer.getmany(timeout_ms=100)).values():
                    found += records
    return found


def read(value: bytes | None) -> Any:
    """Return the JSON of a record, if it is any."""
    try:
        return msgspec.json.decode(value or b"null")
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def is_valid(check: Draft7Validator, value: Any) -> bool:
    """Return whether a value is as a schema says."""
    return not any(check.iter_errors(value))


async def test_the_page_shows_every_topic_every_message_and_every_type_without_a_script(
    live_stack: Stack,
) -> None:
    page = await ask(live_stack.workers[0].port, "GET", "/docs/topics")
    assert (page.status, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "script-src" not in policy
    html = page.body.decode()
    assert not re.search(r"<script|<style|\son\w+=|https?://|style=", html)
    ids = re.findall(r'id="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    assert {f"message-{name}" for name in MESSAGES} <= set(ids)
    assert set(re.findall(r'href="#([^"]+)"', html)) <= set(ids)
    for topic in CHANNELS:
        assert f"<code>{topic}</code>" in html
    assert {"/docs", "/console"} <= set(re.findall(r'href="(/[^"]*)"', html))
