"""The AsyncAPI document: what goes over Kafka, for programs.

The document is generated from the running code: the declared topics, the types that records are read and
written with, and the docstrings of both. The rest stands here: who may write what, and what the headers are.
"""

import inspect
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, get_args

import msgspec
from msgspec import NODEFAULT, Raw, Struct
from msgspec.structs import FieldInfo

from mercuria import __version__
from mercuria.domain.commands import AnyCommand, ClientCommand
from mercuria.domain.events import TYPES, CommandRejected
from mercuria.domain.ledger import Entry
from mercuria.domain.transaction import TransactionCompleted, TransactionFailed
from mercuria.kafka.cloudevents import NUMBERED, SOURCE, CloudEvent
from mercuria.topics import (
    LEDGER_EVENTS,
    PROCESSED,
    TOPICS,
    TRANSACTION_EVENTS,
    WALLET_COMMANDS,
    WALLET_DEAD_LETTERS,
    WALLET_EVENTS,
)
from mercuria.web.endpoint import ANYONE, Answer, Call, endpoint
from mercuria.web.openapi import Json, Schemas

DESCRIPTION = """\
Commands that wallets decide, and the events that follow. Each record is JSON. A record stays in its wallet's partition
from topic to topic, so what concerns a wallet comes in order; between partitions there is no order.

Clients may send commands, and read everything. The key of a command is its wallet's id as text, and any partition
will do: a wallet's commands find their way. Kafka may hold an event twice: the same `id` is the same event.

Amounts are integers in minor units of the currency: `1050` is 10.50 EUR. Times are RFC 3339 in UTC where they are text.
"""

BINDING_VERSION = "0.5.0"
CLOUDEVENTS = "application/cloudevents+json"
LEGS = set(get_args(AnyCommand)) - set(get_args(ClientCommand))

WALLET_KEY: Json = {"type": "string", "format": "uuid", "description": "The id of the wallet."}
ENDING_KEY: Json = {
    "type": "string",
    "format": "uuid",
    "description": "The id of the wallet whose event ended the transaction.",
}
TRACE_HEADERS: Json = {
    "type": "object",
    "properties": {
        "request-id": {
            "type": "string",
            "pattern": "^[A-Za-z0-9._-]{1,64}$",
            "description": "The id of the HTTP request that this comes from. What follows from a record carries it on.",
        },
        "traceparent": {
            "type": "string",
            "description": "The span that this comes from, as W3C Trace Context has it. What follows from a "
            "record names the span in which that was processed.",
        },
        "tracestate": {"type": "string", "description": "What belongs to that, as the first record had it."},
    },
}
COMMAND_HEADERS: Json = {
    "type": "object",
    "properties": {
        "reply-to": {
            "type": "string",
            "pattern": "^[0-9a-f]{32}:[0-9]{1,19}:[0-9a-f]{32}$",
            "description": "Of commands that a worker has sent for a request: the worker that waits for the outcome, "
            "the number of the request, and a signature for this very record. Legs carry it on. Clients leave it out: "
            "what no worker has signed counts as absent.",
        }
    }
    | TRACE_HEADERS["properties"],
}
DEAD_LETTER_HEADERS: Json = {
    "type": "object",
    "properties": {
        "code": {"type": "string", "description": "Why the record is no command, for programs."},
        "detail": {"type": "string", "description": "The same, for people."},
        "topic": {"enum": list(PROCESSED), "description": "Where the record came from."},
        "partition": {"type": "string", "pattern": "^[0-9]+$", "description": "Its partition, in digits."},
        "offset": {"type": "string", "pattern": "^[0-9]+$", "description": "Its offset there, in digits."},
        "reason": {"type": "string", "description": "Why an operator has had the record skipped."},
        "skipped-by": {"type": "string", "description": "Who that was."},
        "skipped-at": {"type": "string", "format": "date-time", "description": "When that was."},
        "digest": {
            "type": "string",
            "pattern": "^[0-9a-f]{64}$",
            "description": "Where it was too large to be kept as it came: SHA-256 of its key and its value; where it "
            "cannot be read, of its bytes, or of its record batch.",
        },
        "key-bytes": {"type": "string", "pattern": "^[0-9]+$", "description": "How large its key was then."},
        "value-bytes": {"type": "string", "pattern": "^[0-9]+$", "description": "And its value."},
        "headers-bytes": {"type": "string", "pattern": "^[0-9]+$", "description": "And its headers."},
        "record-bytes": {
            "type": "string",
            "pattern": "^[0-9]+$",
            "description": "How many bytes a record has that cannot be read.",
        },
    },
    "required": ["code", "detail", "topic", "partition", "offset"],
}

CHANNELS: Mapping[str, tuple[str, str]] = {
    WALLET_COMMANDS: ("walletCommands", "Commands to wallets, one in each record."),
    WALLET_EVENTS: ("walletEvents", "What wallets have decided: one event for each command."),
    TRANSACTION_EVENTS: ("transactionEvents", "How transactions have ended: one event for each."),
    LEDGER_EVENTS: ("ledgerEvents", "The ledger: a debit and a credit for each completed transaction."),
    WALLET_DEAD_LETTERS: ("walletDeadLetters", "Records that no wallet could decide, as they came."),
}
"""By topic: its name in the document, and its purpose. Changelogs and skips are internal."""


@endpoint("GET", "/api/v1/asyncapi.json", answers={200: dict[str, Any]}, access=ANYONE)
async def describe_topics(call: Call) -> Answer:
    """Return what goes over Kafka: the AsyncAPI document."""
    settings = call.context.settings
    content = msgspec.Raw(encoded(settings.partitions, settings.replication))
    return Answer(content, headers={"Cache-Control": "no-cache"})


@cache
def encoded(partitions: int, replication: int) -> bytes:
    """Return the document as JSON."""
    return msgspec.json.encode(document(partitions, replication))


def document(partitions: int, replication: int) -> Json:
    """Return the document of topics with so many partitions and replicas."""
    schemas = _Schemas()
    messages: Json = {}
    of_topic: dict[str, list[str]] = {topic: [] for topic in CHANNELS}

    def add(topic: str, name: str, message: Json) -> None:
        messages[name] = message
        of_topic[topic].append(name)

    for kind in get_args(AnyCommand):
        add(WALLET_COMMANDS, kind.__name__, _command(kind, schemas))
    for kind, type_ in TYPES.items():
        add(WALLET_EVENTS, kind.__name__, _event(kind, type_, SOURCE, WALLET_KEY, schemas))
    for topic, kinds in (
        (TRANSACTION_EVENTS, (TransactionCompleted, TransactionFailed)),
        (LEDGER_EVENTS, (Entry,)),
    ):
        for kind in kinds:
            add(topic, kind.__name__, _event(kind, *NUMBERED[kind], ENDING_KEY, schemas))
    add(WALLET_DEAD_LETTERS, "DeadLetter", _dead_letter())
    _to_draft_7(schemas.components)
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Mercuria",
            "version": __version__,
            "description": DESCRIPTION,
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
            "externalDocs": {"description": "The HTTP API.", "url": "/docs"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "kafka": {
                "host": "{bootstrap}",
                "protocol": "kafka",
                "description": "At the address in the setting `MERCURIA_KAFKA`.",
                "variables": {"bootstrap": {"default": "localhost:9092", "description": "Host and port."}},
            }
        },
        "channels": {
            CHANNELS[topic][0]: _channel(topic, names, partitions, replication)
            for topic, names in of_topic.items()
        },
        "operations": _operations(of_topic),
        "components": {"messages": messages, "schemas": schemas.components},
    }


def is_for_clients(message: Json) -> bool:
    """Return whether clients may send a message."""
    return bool(message.get("x-clients-may-send", False))


class _Schemas(Schemas):
    """The schemas of types, without problems, which do not occur on Kafka."""

    def __init__(self) -> None:
        self.components: Json = {}

    def of(self, kind: Any) -> Json:
        """Return the schema of a type."""
        return super().of(_any_for_raw(kind))


def _to_draft_7(schema: Any) -> None:
    """Write tuples in the form of JSON Schema draft 7, which AsyncAPI uses."""
    if isinstance(schema, dict):
        if "prefixItems" in schema:
            schema["items"] = schema.pop("prefixItems")
            schema["additionalItems"] = False
        schema.pop("discriminator", None)
        for part in schema.values():
            _to_draft_7(part)
    elif isinstance(schema, list):
        for part in schema:
            _to_draft_7(part)


def _command(kind: type[Struct], schemas: _Schemas) -> Json:
    is_leg = kind in LEGS
    return _message(kind, str(kind.__struct_config__.tag)) | {
        "contentType": "application/json",
        "headers": COMMAND_HEADERS,
        "payload": schemas.of(kind),
        "bindings": _key(WALLET_KEY),
        "tags": [{"name": "leg" if is_leg else "command"}],
        # Workers seal legs, and refuse unsealed legs of other producers (`leg_not_authentic`).
        "x-clients-may-send": not is_leg,
    }


def _event(kind: type[Struct], type_: str, source: str, key: Json, schemas: _Schemas) -> Json:
    envelope = _envelope(schemas)
    payload = envelope | {
        "properties": envelope["properties"]
        | {
            "specversion": {"const": "1.0"},
            "type": {"const": type_},
            "source": {"const": source},
            "datacontenttype": {"const": "application/json"},
            "data": schemas.of(kind),
        },
        # The wallet of a record that is not a command may be unknown.
        "required": [*envelope["required"], *([] if kind is CommandRejected else ["subject"]), "data"],
    }
    return _message(kind, type_) | {
        "contentType": CLOUDEVENTS,
        "headers": TRACE_HEADERS,
        "payload": payload,
        "bindings": _key(key),
        "tags": [{"name": "event"}],
        "x-clients-may-send": False,
    }


def _envelope(schemas: _Schemas) -> Json:
    """Return the schema of the envelope around the data of an event."""
    fields = [_declaration(each) for each in msgspec.structs.fields(CloudEvent) if each.name != "data"]
    properties, required = schemas.fields_of(msgspec.defstruct(CloudEvent.__name__, fields))
    # An unknown subject is missing, never null.
    properties["subject"] = {
        "type": "string",
        "format": "uuid",
        "description": "The wallet, or the transaction.",
    }
    properties["time"] = properties["time"] | {"format": "date-time"}
    return {"type": "object", "properties": properties, "required": required}


def _any_for_raw(kind: type[Struct]) -> type[Struct]:
    """Return a struct without JSON fields that are raw by default: such a field is any JSON, or null.

    No schema can be generated for raw JSON.
    """
    fields = msgspec.structs.fields(kind)
    if not any(isinstance(each.default, Raw) for each in fields):
        return kind
    declared = [
        (each.name, Any, None) if isinstance(each.default, Raw) else _declaration(each) for each in fields
    ]
    return msgspec.defstruct(kind.__name__, declared, namespace={"__doc__": kind.__doc__})


def _declaration(field: FieldInfo) -> Any:
    return (field.name, field.type) if field.default is NODEFAULT else (field.name, field.type, field.default)


def _dead_letter() -> Json:
    return {
        "name": "dead-letter",
        "title": "Dead letter",
        "summary": "A record that no wallet could decide.",
        "description": "Key and value are as they came, whatever they are. Where they have more than 2 MiB without "
        "compression, they are the first 1,024 and 65,536 bytes, and headers say what they were.",
        "contentType": "application/octet-stream",
        "headers": DEAD_LETTER_HEADERS,
        "payload": {"description": "Any bytes."},
        "bindings": _key({"description": "Any bytes, or none."}),
        "tags": [{"name": "dead letter"}],
        "x-clients-may-send": False,
    }


def _message(kind: type[Struct], name: str) -> Json:
    summary, _, description = (inspect.getdoc(kind) or "").partition("\n")
    found: Json = {"name": name, "title": name, "summary": summary.rstrip(".")}
    if description.strip():
        found["description"] = description.strip()
    return found


def _key(schema: Json) -> Json:
    return {"kafka": {"key": schema, "bindingVersion": BINDING_VERSION}}


def _channel(topic: str, names: Iterable[str], partitions: int, replication: int) -> Json:
    (spec,) = (each for each in TOPICS if each.name == topic)
    config: Json = {"cleanup.policy": spec.config["cleanup.policy"].split(",")}
    for name in ("retention.ms", "retention.bytes", "max.message.bytes"):
        config[name] = int(spec.config[name])
    return {
        "address": topic,
        "title": topic,
        "summary": CHANNELS[topic][1],
        "servers": [{"$ref": "#/servers/kafka"}],
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in names},
        "bindings": {
            "kafka": {
                "topic": topic,
                "partitions": partitions,
                "replicas": replication,
                "topicConfiguration": config,
                "bindingVersion": BINDING_VERSION,
            }
        },
    }


def _operations(of_topic: Mapping[str, list[str]]) -> Json:
    """Return Mercuria's operations: it receives what clients send, and sends what they read."""
    legs = [kind.__name__ for kind in get_args(AnyCommand) if kind in LEGS]
    commands = [name for name in of_topic[WALLET_COMMANDS] if name not in legs]
    found = {
        "receiveCommands": _operation(
            "receive", WALLET_COMMANDS, commands, "Decide what clients ask wallets to do."
        ),
        "receiveLegs": _operation(
            "receive",
            WALLET_COMMANDS,
            legs,
            "Decide the legs that wallets send each other. No client may send these.",
        ),
        "sendLegs": _operation("send", WALLET_COMMANDS, legs, "Let a wallet ask another one."),
    }
    summaries = {
        WALLET_EVENTS: ("sendWalletEvents", "Emit what wallets have decided."),
        TRANSACTION_EVENTS: ("sendTransactionEvents", "Emit how transactions have ended."),
        LEDGER_EVENTS: ("sendLedgerEvents", "Emit what was entered into the ledger."),
        WALLET_DEAD_LETTERS: ("sendDeadLetters", "Keep what no wallet could decide."),
    }
    for topic, (name, summary) in summaries.items():
        found[name] = _operation("send", topic, of_topic[topic], summary)
    return found


def _operation(action: str, topic: str, names: Iterable[str], summary: str) -> Json:
    channel = f"#/channels/{CHANNELS[topic][0]}"
    return {
        "action": action,
        "channel": {"$ref": channel},
        "summary": summary,
        "messages": [{"$ref": f"{channel}/messages/{name}"} for name in names],
    }
